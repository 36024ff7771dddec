"""Metrics whose series no request can add to."""

from app.metrics import Metrics


def test_unknown_methods_and_paths_share_one_series():
    metrics = Metrics()
    for number in range(100):
        metrics.request_ended(f"VERB{number}", None, 404, 0.1, "not_found")
    metrics.request_ended("POST", "/generate", 200, 0.1, None)
    counts = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "digits_request_seconds_count"
    }
    assert counts == {("other", "unmatched", "404"): 100, ("POST", "/generate", "200"): 1}
    assert metrics.registry.get_sample_value("digits_rejections_total", {"code": "not_found"}) == 100


def test_two_apps_in_a_process_share_no_metrics():
    one, other = Metrics(), Metrics()
    one.batch_metrics("vae", "generate").computed(8, 0.1)
    labels = {"model": "vae", "operation": "generate"}
    assert one.registry.get_sample_value("digits_batch_rows_sum", labels) == 8
    assert other.registry.get_sample_value("digits_batch_rows_sum", labels) is None

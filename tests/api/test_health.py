"""/livez, /readyz and /metrics, also before and after the service can serve."""

import pytest

from app.main import create_app
from app.settings import Settings
from tests.api.reading import measured, metric, problem_of, series
from tests.conftest import SHIPPED_NAMES, NeverLoaded, WatchedReadiness, listening, serving


def test_a_loaded_service_is_alive_and_ready(client):
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "models": SHIPPED_NAMES}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_scrapers_may_send_any_query_and_accept_any_type(client, path):
    assert client.get(path, params={"now": 3}, headers={"Accept": "image/png"}).status_code == 200


def test_while_loading_the_service_is_alive_and_not_ready(tiny_models):
    app = create_app(Settings(models_dir=tiny_models, device="cpu"), readiness=NeverLoaded())
    with listening(app) as client:
        assert client.get("/livez").status_code == 200
        assert problem_of(client.get("/readyz"), 503, "not_ready")["reasons"]
        for answer in (client.post("/generate", json={}), client.get("/models"), client.get("/interpolate")):
            problem_of(answer, 503, "not_ready")
        assert measured(client, "ready") == 0


@pytest.mark.parametrize(
    ("settings", "cause"),
    [({"models_dir": "empty"}, "empty"), ({"default_model": "nobody"}, "nobody"), ({"device": "cuda:99"}, "cuda:99")],
)
def test_a_failed_load_is_logged_and_never_ready(tmp_path, tiny_models, monkeypatch, caplog, settings, cause):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    failures = []
    readiness = WatchedReadiness()
    given = Settings(**{"models_dir": tiny_models, "device": "cpu", **settings})
    app = create_app(given, readiness=readiness, on_failure=lambda: failures.append(1))
    with listening(app) as client:
        assert readiness.ended.wait(60)
        answer = client.get("/readyz")
        assert problem_of(answer, 503, "not_ready")["reasons"]
        assert cause not in answer.text, "only the log has the details"
        assert client.get("/livez").status_code == 200
    assert failures == [1]
    assert cause in caplog.text


def test_a_draining_service_is_alive_not_ready_and_refuses_requests(tiny_models):
    readiness = WatchedReadiness()
    with listening(create_app(Settings(models_dir=tiny_models, device="cpu"), readiness=readiness)) as client:
        assert readiness.ended.wait(60)
        readiness.begin_shutdown()
        problem_of(client.get("/readyz"), 503, "draining")
        assert client.post("/generate", json={}).status_code == 200, "load balancers need time to notice"
        readiness.drain()
        assert problem_of(client.get("/readyz"), 503, "draining")["reasons"]
        problem_of(client.post("/generate", json={}), 503, "draining")
        assert client.get("/livez").status_code == 200


def test_metrics_count_requests_rows_and_errors(tiny_models):
    with serving(models_dir=tiny_models) as client:
        answer = client.post("/generate", json={"n": 3}).json()
        client.post("/generate", json={"n": 2})
        client.post("/generate", json={"n": 0})
        client.post("/generate", json={"model": "nobody"})
        client.get("/models/plain")
        page = client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        queue = {"model": "plain", "operation": "generate"}
        info = {"family": "autoencoder"} | {name: answer[name] for name in ("model", "digest", "precision", "runtime")}
        route = {"method": "POST", "route": "/generate"}
        for name, labels, value in (
            ("ready", {}, 1),
            ("model_info", info, 1),
            ("images_total", queue, 5),
            ("batch_rows_sum", queue, 5),
            ("batch_rows_count", queue, 2),
            ("batch_duration_seconds_count", queue, 2),
            ("queue_wait_seconds_count", queue, 2),
            ("queued_rows", queue, 0),
            ("request_errors_total", {"code": "invalid_request", "cause": "caller"}, 1),
            ("request_errors_total", {"code": "model_not_found", "cause": "caller"}, 1),
            ("request_duration_seconds_count", route | {"status": "200"}, 2),
            ("request_duration_seconds_count", route | {"status": "422"}, 1),
            ("request_duration_seconds_count", {"method": "GET", "route": "/models/{name}", "status": "200"}, 1),
        ):
            assert metric(page.text, f"digits_{name}", **labels) == value, (name, labels)


def test_no_request_can_add_a_series(tiny_models):
    with serving(models_dir=tiny_models) as client:

        def send(name):
            client.get(f"/nowhere{name}")
            client.get(f"/models/nobody{name}")
            client.request(f"BREW{name}", "/generate")
            client.post("/generate", json={"label": f"label{name}"})
            return {each for each in series(client.get("/metrics").text) if 'route="/metrics"' not in each}

        before = send("")
        assert send("1") | send("2") == before

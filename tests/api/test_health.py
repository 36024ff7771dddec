"""/livez, /readyz and /metrics, also before and after the service can serve."""

import re

import pytest

from app.inference.readiness import Readiness
from app.main import create_app
from app.settings import Settings
from tests.api.reading import problem_of
from tests.conftest import ROOT, WatchedReadiness, listening, serving
from tests.contract.wire import connection, send, until_closed


def metric(text: str, name: str, **labels: str) -> float:
    """The value of one series, 0 where it does not exist."""
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")) == labels:
            return float(found[2])
    return 0.0


def series(text: str) -> set[str]:
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}


def test_a_loaded_service_is_alive_and_ready(client):
    assert client.get("/livez").json() == {"status": "alive"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    shipped = sorted(path.parent.name for path in ROOT.glob("models/*/manifest.json"))
    assert answer.json() == {"status": "ready", "models": shipped}


class Unhurried(Readiness):
    """Stays in the state of loading."""

    def loaded(self, engine: object) -> None:
        pass


def test_while_loading_the_service_is_alive_and_says_why_it_is_not_ready():
    app = create_app(Settings(models_dir=ROOT / "models", device="cpu"), readiness=Unhurried())
    with listening(app) as client:
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
        body = problem_of(answer, 503, "not_ready")
        assert body["reasons"] == ["loading the models"]
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        for refused in (client.post("/generate", json={}), client.get("/models"), client.get("/interpolate")):
            problem_of(refused, 503, "not_ready")
            assert refused.headers["retry-after"] in {"1", "2", "3"}
        assert metric(client.get("/metrics").text, "digits_ready") == 0


def test_a_failed_load_is_told_and_never_ready(tmp_path, caplog):
    failures = []
    readiness = WatchedReadiness()
    settings = Settings(models_dir=tmp_path, device="cpu")
    app = create_app(settings, readiness=readiness, on_failure=lambda: failures.append(1))
    with listening(app) as client:
        assert readiness.ended.wait(60)
        body = problem_of(client.get("/readyz"), 503, "not_ready")
        assert body["reasons"] == ["loading the models failed; the log says why"]
        assert str(tmp_path) not in client.get("/readyz").text
        assert client.get("/livez").status_code == 200
    assert failures == [1]
    assert f"cannot start: {tmp_path}: holds no checkpoint" in caplog.text


def test_a_default_model_that_is_not_there_fails_the_load(caplog):
    with serving(default_model="nobody") as client:
        problem_of(client.get("/readyz"), 503, "not_ready")
    assert "holds no model nobody, which DIGITS_DEFAULT_MODEL names" in caplog.text


def test_an_absent_device_fails_the_load(caplog):
    with serving(device="cuda:99") as client:
        problem_of(client.get("/readyz"), 503, "not_ready")
    assert "cannot start: device 'cuda:99' cannot be used" in caplog.text


def test_draining_refuses_new_requests_and_is_not_ready():
    readiness = WatchedReadiness()
    app = create_app(Settings(models_dir=ROOT / "models", device="cpu"), readiness=readiness)
    with listening(app) as client:
        assert readiness.ended.wait(60)
        readiness.drain()
        assert problem_of(client.get("/readyz"), 503, "draining")["reasons"] == ["shutting down"]
        problem_of(client.post("/generate", json={}), 503, "draining")
        assert client.get("/livez").status_code == 200


def test_metrics_count_what_happened():
    with serving() as client:
        client.post("/generate", json={"model": "vae", "prior": "normal", "n": 3})
        client.post("/generate", json={"model": "vae", "prior": "normal", "n": 2})
        client.post("/generate", json={"n": 0})
        client.post("/generate", json={"model": "nobody"})
        client.get("/models/vae")
        page = client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        text = page.text
        network = {"model": "vae", "capability": "generate"}
        assert metric(text, "digits_images_total", model="vae", operation="generate") == 5
        assert metric(text, "digits_batch_rows_sum", **network) == 5
        assert metric(text, "digits_batch_rows_count", **network) == 2
        assert metric(text, "digits_inference_seconds_count", **network) == 2
        assert metric(text, "digits_queue_seconds_count", **network) == 2
        assert metric(text, "digits_queued_rows", **network) == 0
        assert metric(text, "digits_rejections_total", code="invalid_request") == 1
        assert metric(text, "digits_rejections_total", code="model_not_found") == 1
        assert metric(text, "digits_request_seconds_count", method="POST", route="/generate", status="200") == 2
        assert metric(text, "digits_request_seconds_count", method="POST", route="/generate", status="422") == 1
        assert metric(text, "digits_request_seconds_count", method="GET", route="/models/{name}", status="200") == 1
        assert metric(text, "digits_ready") == 1
        answer = client.post("/generate", json={"model": "vae"}).json()
        named = ("model", "digest", "precision", "runtime")
        info = {"family": "vae"} | {name: answer[name] for name in named}
        assert metric(text, "digits_model_info", **info) == 1


def test_paths_and_methods_of_a_callers_making_add_no_series():
    with serving() as client:
        for path in ("/nowhere", "/models/nobody"):
            client.get(path)
        client.request("BREW", "/generate")
        before = series(client.get("/metrics").text)
        for number in range(50):
            client.get(f"/nowhere/{number}")
            client.get(f"/models/nobody{number}")
            client.request(f"BREW{number}", "/generate")
        after = series(client.get("/metrics").text)
        assert {name for name in after - before if 'route="/metrics"' not in name} == set()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_health_answers_whatever_is_accepted(client, path):
    assert client.get(path, headers={"Accept": "image/png"}).status_code == 200


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"no request at all\r\n\r\n", "bad_request"), (b"GET /" + b"x" * 100_000, "headers_too_large")],
)
def test_what_never_became_a_request_is_counted_too(client, content, code):
    before = metric(client.get("/metrics").text, "digits_rejections_total", code=code)
    with connection((client.base_url.host, client.base_url.port or 80)) as caller:
        send(caller, content)
        assert until_closed(caller)
    assert metric(client.get("/metrics").text, "digits_rejections_total", code=code) == before + 1

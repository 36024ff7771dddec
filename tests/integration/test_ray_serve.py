"""The application of Ray Serve on a real Ray, and the RayService that deploys it."""

import socket
import warnings
from collections.abc import Iterator

import httpx
import pytest
import yaml

from app.settings import unknown_variables
from tests.conftest import ROOT, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about Ray's own code
    import ray
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from app.server.ray_serve import application

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


MODELS = "cgan,vae"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """The application behind the proxy of a Ray on this machine, with one replica."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS_MODELS_DIR", str(ROOT / "models"))
        patch.setenv("DIGITS_MODELS", MODELS)
        patch.setenv("DIGITS_DEVICE", "cpu")
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")  # on a busy machine
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(application({}), route_prefix="/")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield client
        finally:
            serve.shutdown()
            ray.shutdown()


def test_a_replica_is_ready_when_it_takes_requests_and_answers_as_the_service_does(client):
    assert client.get("/readyz").json() == {"status": "ready", "models": ["cgan", "vae"]}
    asked = {"model": "cgan", "n": 20, "seed": 8, "label": "balanced"}
    npz = {"Accept": "application/x-npz"}
    digit = {"file": (ROOT / "tests" / "fixtures" / "mnist" / "7.png").read_bytes()}
    with serving(models=MODELS) as service:
        for each in (service, client):
            assert each.get("/nothing").status_code == 404
        assert client.post("/generate", json=asked, headers=npz).content == (
            service.post("/generate", json=asked, headers=npz).content
        )
        assert client.post("/generate", json=asked).json() == service.post("/generate", json=asked).json()
        assert client.post("/reconstruct", files=digit).json() == service.post("/reconstruct", files=digit).json()


def test_errors_keep_their_form(client):
    answer = client.post("/generate", json={"model": "cgan", "n": 0})
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_request"


def test_ray_serve_accepts_the_configuration_of_the_rayservice():
    service = yaml.safe_load((ROOT / "deploy" / "ray" / "rayservice.yaml").read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (app,) = config.applications
    assert app.import_path == f"{application.__module__}:{application.__name__}"
    assert [deployment.name for deployment in app.deployments] == ["Digits"]
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert unknown_variables(variable["name"] for variable in container["env"]) == []
    assert f"RAY_VERSION={cluster['rayVersion']}\n" in (ROOT / "deploy" / "ray" / "Dockerfile").read_text()
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()

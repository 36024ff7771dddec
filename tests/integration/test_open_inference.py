"""Unmodified clients of the Open Inference Protocol against a service of two processes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from app.open_inference.grpc_server import SERVICE
from app.settings import MAX_GRPC_CONNECTIONS
from benchmarks.environments import python_of
from tests.api.reading import NPZ, metric, npz_of
from tests.conftest import ROOT
from tests.contract.process import Service, free_port, running, start

CLIENTS = Path(__file__).parent / "clients"
PROTO = ROOT / "app" / "open_inference"


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the clients."""
    return python_of(CLIENTS)


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(grpc_port) -> Iterator[Service]:
    with running(models="cgan", processes="2", grpc_port=str(grpc_port)) as service:
        yield service


@pytest.mark.parametrize(
    "client",
    [
        *("triton-http-json", "triton-http-binary", "triton-aio-json", "triton-aio-binary"),
        *("triton-grpc", "triton-grpc-aio", "kserve-json", "kserve-binary", "kserve-grpc"),
    ],
)
def test_a_client_gets_the_images_and_scores_that_the_other_operations_give(
    service, python, grpc_port, tmp_path, client
):
    file = tmp_path / "answers.npz"
    addresses = [service.url.removeprefix("http://"), f"127.0.0.1:{grpc_port}"]
    command = [python, "-m", "tests.integration.clients", client, *addresses, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = np.load(file)
    labels = [str(label) for label in range(10)]
    # Image i of a seed has item i of the list.
    body = {"seed": 8, "first": 3, "n": 10, "label": labels[-3:] + labels[:-3]}
    images = npz_of(httpx.post(f"{service.url}/generate", json=body, headers=NPZ, timeout=60))["images"]
    scores = npz_of(httpx.post(f"{service.url}/score", json=body, headers=NPZ, timeout=60))
    assert np.array_equal(answers["image"], images)
    assert answers["label"].tolist() == list(range(10))
    assert np.array_equal(answers["logit"], scores["logits"])
    assert [str(answers[name]) for name in ("server", "model", "id")] == ["digits", "cgan.generate", "42"]
    assert "[-1, 100]" in str(answers["error"])


def test_open_connections_of_grpc_are_a_gauge_beside_their_bound(service, grpc_port):
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.insecure_channel(f"127.0.0.1:{grpc_port}", own) for _ in range(3)]
    try:
        for channel in channels:
            channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=60)
        page = httpx.get(f"{service.url}/metrics", timeout=60).text
    finally:
        for channel in channels:
            channel.close()
    name = "digits_process_grpc_connections"
    assert sum(metric(page, name, process=str(process)) for process in range(2)) >= 3
    assert metric(page, f"{name}_limit") == MAX_GRPC_CONNECTIONS


def test_the_compiled_messages_are_those_of_the_source(tmp_path):
    made = tmp_path / "made.desc"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={made}"]
    subprocess.run([*command, "open_inference.proto"], check=True)
    assert made.read_bytes() == (PROTO / "open_inference.desc").read_bytes()


def test_a_port_of_grpc_that_is_taken_ends_the_start_with_one_line(service, grpc_port):
    process = start(free_port(), models="cgan", grpc_port=str(grpc_port))
    try:
        _, log = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert f"DIGITS_GRPC_PORT={grpc_port}" in log
    assert "Traceback" not in log

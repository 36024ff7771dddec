"""The rows of a client that hangs up are not computed."""

import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.api.reading import metric
from tests.conftest import ROOT, serving
from tests.contract.wire import Address, connection, until_closed

CALL = (
    b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 29\r\n\r\n{"model": "gan", "n":    256}'
)
CHUNKED = CALL.partition(b"Content-Length")[0] + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
UPLOAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999999\r\n\r\n"
NETWORK = {"model": "gan", "operation": "generate"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the model that takes the longest time for an image."""
    directory = tmp_path_factory.mktemp("models")
    (directory / "gan").symlink_to(ROOT / "models" / "gan")
    return directory


def wait_for(client: httpx.Client, name: str, value: float, **labels: str) -> str:
    """The metrics page once a metric is at least `value`; a test can only poll the other side of a socket."""
    deadline = time.monotonic() + 60
    while metric(page := client.get("/metrics").text, name, **labels) < value:
        assert time.monotonic() < deadline, page
    return page


def address_of(client: httpx.Client) -> Address:
    return client.base_url.host, client.base_url.port or 0


@pytest.mark.parametrize(
    "behind",
    [b"", CALL, CALL * 20_000, UPLOAD + bytes(200_000)],
    ids=["nothing", "a request", "more than may wait", "part of an upload"],
)
def test_rows_of_a_client_that_hung_up_are_not_computed(models, behind):
    with serving(models_dir=models, max_batch_rows=1, workers=1, receive_timeout_s=600) as client:
        with socket.create_connection(address_of(client)) as caller:
            caller.sendall(CALL)
            wait_for(client, "digits_batch_rows_count", 1, **NETWORK)
            caller.sendall(behind)
            client.get("/livez")  # by now the other side has read it
        wait_for(client, "digits_request_errors_total", 1, code="caller_gone", cause="caller")
        # Other clients are served, and little more than the rows under way was computed.
        assert client.post("/generate", json={"model": "gan", "n": 1}).status_code == 200
        page = client.get("/metrics").text
        assert metric(page, "digits_batch_rows_sum", **NETWORK) < 256
        assert metric(page, "digits_images_total", model="gan", operation="generate") == 1


def test_a_client_that_leaves_or_is_refused_within_its_body_is_counted_once_and_is_no_fault_of_the_service(
    models, caplog
):
    with serving(models_dir=models) as client:
        with connection(address_of(client)) as caller:
            caller.sendall(CALL[:-10])
        wait_for(client, "digits_request_errors_total", 1, code="caller_gone", cause="caller")
        with connection(address_of(client)) as caller:
            caller.sendall(CHUNKED + b"ZZ\r\n")
            assert [status for status, _ in until_closed(caller)] == [400]
        page = wait_for(client, "digits_request_errors_total", 1, code="bad_request", cause="caller")
        assert metric(page, "digits_request_errors_total", code="caller_gone", cause="caller") == 1
        assert metric(page, "digits_request_errors_total", code="bad_request", cause="caller") == 1
        assert metric(page, "digits_request_errors_total", code="internal_error", cause="service") == 0
    assert "Traceback" not in caplog.text

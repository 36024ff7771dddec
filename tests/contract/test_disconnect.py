"""The rows of a client that hangs up are not computed."""

import socket
from pathlib import Path

import pytest

from tests.api.reading import errors, measured
from tests.conftest import ROOT, serving
from tests.contract.process import until
from tests.contract.wire import address_of, connection, until_closed

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


@pytest.mark.parametrize(
    "behind",
    [b"", CALL, CALL * 20_000, UPLOAD + bytes(200_000)],
    ids=["nothing", "a request", "more than may wait", "part of an upload"],
)
def test_rows_of_a_client_that_hung_up_are_not_computed(models, behind):
    with serving(models_dir=models, max_batch_rows=1, workers=1, receive_timeout_s=600) as client:
        with socket.create_connection(address_of(client)) as caller:
            caller.sendall(CALL)
            until(lambda: measured(client, "batch_rows_count", **NETWORK))
            caller.sendall(behind)
            client.get("/livez")  # by now the other side has read it
        until(lambda: errors(client, "caller_gone"))
        # Other clients are served, and little more than the rows under way was computed.
        assert client.post("/generate", json={"model": "gan", "n": 1}).status_code == 200
        assert measured(client, "batch_rows_sum", **NETWORK) < 256
        assert measured(client, "images_total", **NETWORK) == 1


def test_a_client_that_leaves_or_is_refused_within_its_body_is_counted_once_and_is_no_fault_of_the_service(
    models, caplog
):
    with serving(models_dir=models) as client:
        with connection(address_of(client)) as caller:
            caller.sendall(CALL[:-10])
        until(lambda: errors(client, "caller_gone"))
        with connection(address_of(client)) as caller:
            caller.sendall(CHUNKED + b"ZZ\r\n")
            assert [status for status, _ in until_closed(caller)] == [400]
        until(lambda: errors(client, "bad_request"))
        counts = [errors(client, code) for code in ("caller_gone", "bad_request", "internal_error")]
        assert counts == [1, 1, 0]
    assert "Traceback" not in caplog.text

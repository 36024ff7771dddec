"""A caller that hangs up takes its rows with it: they are never computed."""

import socket
import time

import httpx
import pytest

from tests.api.test_health import metric
from tests.conftest import serving
from tests.contract.wire import until_closed

CALL = (
    b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 29\r\n\r\n{"model": "gan", "n":    256}'
)
NETWORK = {"model": "gan", "capability": "generate"}


def wait_for(condition, client: httpx.Client) -> str:
    """The metrics page once the condition holds of it; the other side of a socket can only be asked."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        page = client.get("/metrics").text
        if condition(page):
            return page
    raise AssertionError("it did not come to pass in a minute")


def test_rows_of_a_caller_that_hung_up_are_never_computed():
    with serving(max_batch_rows=1, workers=1) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as caller:
            caller.sendall(CALL)
            wait_for(lambda page: metric(page, "digits_batch_rows_count", **NETWORK) >= 1, client)
        page = wait_for(lambda page: metric(page, "digits_rejections_total", code="caller_gone") == 1, client)
        assert metric(page, "digits_queued_rows", **NETWORK) == 0
        # Somebody else is served at once, and but for the rows under way nothing more was computed.
        assert client.post("/generate", json={"model": "gan", "n": 1}).status_code == 200
        page = client.get("/metrics").text
        assert metric(page, "digits_batch_rows_sum", **NETWORK) < 256
        assert metric(page, "digits_images_total", model="gan", operation="generate") == 1


def test_a_caller_that_hangs_up_within_its_body_is_no_fault_of_ours(caplog):
    with serving() as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as caller:
            caller.sendall(CALL[:-10])
        page = wait_for(lambda page: metric(page, "digits_rejections_total", code="caller_gone") == 1, client)
        assert metric(page, "digits_rejections_total", code="internal_error") == 0
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("times", [1, 3])
def test_a_body_that_is_refused_while_its_caller_waits_to_be_told_to_go_on_is_no_fault_of_ours(caplog, times):
    head = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with serving() as client:
        for _ in range(times):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as caller:
                caller.sendall(head + b"ZZ\r\n")
                assert [status for status, _ in until_closed(caller)] == [400]
        page = client.get("/metrics").text
        assert metric(page, "digits_rejections_total", code="bad_request") == times
        assert metric(page, "digits_rejections_total", code="internal_error") == 0
    assert "Traceback" not in caplog.text


def test_a_body_that_comes_too_late_is_counted_once_as_its_caller_is_told():
    with serving(receive_timeout_s=0.2) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as caller:
            caller.sendall(CALL[:-10])
            answer = until_closed(caller)
        assert [status for status, _ in answer] == [408]
        page = wait_for(lambda page: metric(page, "digits_rejections_total", code="request_timeout") >= 1, client)
        assert metric(page, "digits_rejections_total", code="request_timeout") == 1
        assert 'code="caller_gone"' not in page
        assert 'status="499"' not in page
        assert 'status="408"' in page


UPLOAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999999\r\n\r\n" + bytes(
    200_000
)


@pytest.mark.parametrize(
    "behind",
    [[CALL], [CALL, CALL], [CALL * 60], [CALL * 20_000], [UPLOAD]],
    ids=["one", "two apart", "sixty", "more than is held", "part of an upload"],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_requests_behind_it_do_not_keep_a_caller_from_hanging_up(behind, at_once):
    with serving(max_batch_rows=1, workers=1, receive_timeout_s=600) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as caller:
            caller.sendall(CALL + behind[0] if at_once else CALL)
            wait_for(lambda page: metric(page, "digits_batch_rows_count", **NETWORK) >= 1, client)
            for more in behind[at_once:]:
                caller.sendall(more)
                client.get("/livez")  # by then the other side has read it
        page = wait_for(lambda page: metric(page, "digits_rows_in_flight") == 0, client)
        assert metric(page, "digits_batch_rows_sum", **NETWORK) < 256
        assert metric(page, "digits_requests_in_flight") == 0
        assert metric(page, "digits_images_total", model="gan", operation="generate") == 0

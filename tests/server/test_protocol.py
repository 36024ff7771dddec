"""Bytes on the wire: large heads, trailers, offers of other protocols, pipelining."""

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.protocol import (
    MAX_PIPELINED,
    MAX_UNFINISHED_BYTES,
    Limits,
    UnsupportedUvicorn,
    bounded_protocol,
)
from tests.contract.wire import answers, connection, send, until_closed

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = GET.replace(b"/echo", b"/later")
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# The largest read of asyncio, which a head may have in addition.
READ = 256 * 1024
ENDLESS = {
    "a request line": (b"GET /", b"x"),
    "a header's name": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"x"),
    "a header's value": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"x"),
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
    "a chunk's head": (CHUNKED + b"5;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n"),
}


@pytest.mark.parametrize(("beginning", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_a_head_without_end_is_refused(patient, beginning, more):
    with connection(patient) as caller:
        send(caller, beginning + more * ((MAX_UNFINISHED_BYTES + 2 * READ) // len(more)))
        ((status, body),) = until_closed(caller)
        assert (status, body["status"], body["code"]) == (431, 431, "headers_too_large")


def test_trailers_do_not_become_headers(patient):
    with connection(patient) as caller:
        send(caller, CHUNKED + b"5;name=value\r\nabcde\r\n0\r\nX-Late: 1\r\n\r\n" + GET)
        (first, second) = answers(caller, 2)
        assert first == (200, {"bytes": 5, "query": "", "headers": ["host", "transfer-encoding"]})
        assert second == (200, {"bytes": 0, "query": "", "headers": ["host"]})


def test_a_request_in_single_bytes_is_answered(patient):
    with connection(patient) as caller:
        for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde":
            caller.sendall(bytes([byte]))
        assert answers(caller, 1)[0][1]["bytes"] == 5


def test_a_large_body_is_read_and_the_next_request_is_answered(patient):
    with connection(patient) as caller:
        send(caller, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000) + GET)
        assert [body["bytes"] for _, body in answers(caller, 2)] == [3_000_000, 0]


def test_the_rest_of_a_body_that_the_app_does_not_read_is_not_taken_for_a_request(patient):
    with connection(patient) as caller:
        send(caller, b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * len(GET)) + GET)
        assert answers(caller, 1) == [(200, {})]
        send(caller, GET + GET)
        assert [body["bytes"] for _, body in answers(caller, 1)] == [0]


def test_pipelined_requests_are_answered_in_order_one_each(start, gate):
    requests = [b"GET /echo?%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(MAX_PIPELINED)]
    requests[3] = b"POST /echo?3 HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" + bytes(10_000)
    with connection(start(Limits(receive_timeout_s=600))) as caller:
        send(caller, LATER + b"".join(requests))
        gate.go_on.set()
        queries = [body["query"] for _, body in answers(caller, MAX_PIPELINED + 1)]
        assert queries == ["later", *(f"{number}=" for number in range(MAX_PIPELINED))]
        send(caller, GET)
        assert [status for status, _ in answers(caller, 1)] == [200]


@pytest.mark.parametrize(
    "excess",
    [GET * 10_000, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(3 * READ)],
    ids=["requests", "a body"],
)
def test_a_client_that_pipelines_too_much_gets_the_responses_that_are_due_and_no_others(start, gate, excess):
    address = start(Limits(receive_timeout_s=600))
    with connection(address) as caller, connection(address) as other:
        send(caller, LATER + GET)
        assert gate.begun.wait(60)
        send(caller, excess)
        send(other, GET)
        assert answers(other, 1)  # by now the other side has read the excess
        gate.go_on.set()
        queries = [body["query"] for _, body in until_closed(caller)]
        assert queries[:2] == ["later", ""]
        assert len(queries) <= MAX_PIPELINED + 1


def test_a_request_that_is_refused_does_not_cut_into_an_earlier_response(start, gate):
    with connection(start(Limits(receive_timeout_s=600))) as caller:
        send(caller, LATER)
        assert gate.begun.wait(60)
        send(caller, GET + b"no request at all\r\n\r\n")
        gate.go_on.set()
        assert [body["query"] for _, body in until_closed(caller)] == ["later", ""]


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_an_offer_of_another_protocol_is_ignored(patient, upgrade):
    head = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\nContent-Length: 5\r\n\r\n" % upgrade
    )
    with connection(patient) as caller:
        send(caller, head + b"abcde" + GET + head)
        caller.sendall(b"abc")
        caller.sendall(b"de")
        assert [body["bytes"] for _, body in answers(caller, 3)] == [5, 0, 5]


@pytest.mark.parametrize(
    "head", [b"GET /echo HTTP/1.1\r\nConnection: close, upgrade\r\n", b"GET /echo HTTP/1.0\r\nConnection: upgrade\r\n"]
)
def test_an_offer_on_a_connection_that_is_to_be_closed_is_answered_once(patient, head):
    with connection(patient) as caller:
        send(caller, head + b"Host: x\r\nUpgrade: h2c\r\n\r\n" + GET)
        assert [status for status, _ in until_closed(caller)] == [200]


@pytest.mark.parametrize("rest", [b"\x00x\r\n\r\n", b"\r\n" * 100_000, b"NO SUCH THING\r\n\r\n"])
def test_bytes_behind_a_complete_request_do_not_take_its_response(patient, rest):
    with connection(patient) as caller:
        send(caller, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + rest)
        ((status, body),) = answers(caller, 1)
        assert (status, body["bytes"]) == (200, 3)


def test_a_version_of_uvicorn_without_an_overridden_method_is_refused(monkeypatch):
    monkeypatch.delattr(HttpToolsProtocol, "on_response_complete")
    with pytest.raises(UnsupportedUvicorn, match="on_response_complete"):
        bounded_protocol(Limits())

"""The HTTP protocol on the wire: what never becomes whole is refused, and everything else gets one answer."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from app.errors import install_error_handlers
from app.server.protocol import MAX_UNFINISHED_BYTES
from tests.conftest import listening
from tests.contract.wire import Address, answers, connection, send

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a request line": b"GET /" + b"x" * 100,
    "a header's name": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x" * 100,
    "a header's value": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100,
    "headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10,
}


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/echo", operation_id="get")
    @app.post("/echo", operation_id="post")
    async def echo(request: Request) -> dict[str, object]:
        body = await request.body()
        names = [name.decode() for name, _ in request.scope["headers"]]
        return {"bytes": len(body), "query": str(request.query_params), "headers": names}

    with listening(app) as client:
        yield client.base_url.host, client.base_url.port or 0


@pytest.mark.parametrize("what", ENDLESS)
def test_what_comes_before_a_body_is_bounded(address, what):
    with connection(address) as caller:
        beginning = ENDLESS[what]
        send(caller, beginning)
        more = b"A: b\r\n" if what == "headers" else b"x"
        for _ in range(MAX_UNFINISHED_BYTES // 1024 + 5):
            send(caller, more * (1024 // len(more) + 1))
        ((status, body),) = answers(caller, 2)
        assert (status, body["status"], body["code"]) == (431, 431, "headers_too_large")


@pytest.mark.parametrize("size", [70_000, 250_000, 3_000_000])
def test_a_large_header_in_one_read_is_refused(address, size):
    with connection(address) as caller:
        send(caller, b"GET /echo HTTP/1.1\r\nHost: x\r\nX: " + b"x" * size + b"\r\n\r\n")
        assert [status for status, _ in answers(caller, 2)] == [431]


@pytest.mark.parametrize("chunk", [b"5;" + b"x" * 90_000, b"5\r\nabcde\r\n0\r\n" + b"A: b\r\n" * 20_000])
def test_the_head_of_a_chunk_and_trailers_are_bounded(address, chunk):
    with connection(address) as caller:
        send(caller, CHUNKED)
        send(caller, chunk)
        send(caller, b"x" * 1000)
        assert 200 not in [status for status, _ in answers(caller, 1)]


def test_a_whole_request_is_answered_though_the_next_one_has_no_end(address):
    with connection(address) as caller:
        send(caller, GET + b"GET /" + b"x" * 100_000)
        assert [status for status, _ in answers(caller, 3)] == [200, 431]


def test_trailers_do_not_become_headers(address):
    with connection(address) as caller:
        send(caller, CHUNKED + b"5;name=value\r\nabcde\r\n0\r\nX-Late: 1\r\n\r\n" + GET)
        (first, second) = answers(caller, 2)
        assert first == (200, {"bytes": 5, "query": "", "headers": ["host", "transfer-encoding"]})
        assert second == (200, {"bytes": 0, "query": "", "headers": ["host"]})


def test_a_request_in_single_bytes_is_answered(address):
    with connection(address) as caller:
        for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde":
            caller.sendall(bytes([byte]))
        assert answers(caller, 1)[0][1]["bytes"] == 5


def test_a_large_body_needs_no_more_than_its_length(address):
    with connection(address) as caller:
        send(caller, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000) + GET)
        assert [body["bytes"] for _, body in answers(caller, 2)] == [3_000_000, 0]


def test_pipelined_requests_are_answered_in_order_one_each(address):
    requests = [b"GET /echo?%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3000)]
    # A body of several slices among them waits for its turn, too.
    requests[1500] = b"POST /echo?1500 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
    with connection(address) as caller:
        send(caller, b"".join(requests))
        found = answers(caller, 3000)
        assert [body["query"] for _, body in found] == [f"{number}=" for number in range(3000)]
        assert found[1500][1]["bytes"] == 100_000
        send(caller, GET)
        assert [status for status, _ in answers(caller, 1)] == [200]


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_an_upgrade_that_is_not_offered_is_ignored(address, upgrade):
    head = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\nContent-Length: 5\r\n\r\n" % upgrade
    )
    with connection(address) as caller:
        send(caller, head + b"abcde" + GET + head)
        caller.sendall(b"abc")
        caller.sendall(b"de")
        assert [body["bytes"] for _, body in answers(caller, 3)] == [5, 0, 5]


@pytest.mark.parametrize(("target", "status"), [(b"/echo", 405), (b"http://x/echo", 405), (b"x:80", 400)])
@pytest.mark.parametrize("before", [b"", GET])
def test_nobody_is_connected_through(address, target, status, before):
    with connection(address) as caller:
        send(caller, before + b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        statuses = [status for status, _ in answers(caller, 3)]
        assert statuses == [*([200] if before else []), status]


@pytest.mark.parametrize(
    "head", [b"GET /echo HTTP/1.1\r\nConnection: close, upgrade\r\n", b"GET /echo HTTP/1.0\r\nConnection: upgrade\r\n"]
)
def test_an_offer_on_a_connection_that_is_to_be_closed_is_answered(address, head):
    with connection(address) as caller:
        send(caller, head + b"Host: x\r\nUpgrade: h2c\r\n\r\n")
        assert [status for status, _ in answers(caller, 2)] == [200]


@pytest.mark.parametrize("rest", [b"\x00x\r\n\r\n", b"\r\n" * 100_000, b"NO SUCH THING\r\n\r\n"])
def test_what_follows_a_whole_request_does_not_take_its_answer(address, rest):
    for _ in range(5):
        with connection(address) as caller:
            send(caller, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + rest)
            found = answers(caller, 2)
            assert found
            assert found[0][0] == 200
            assert found[0][1]["bytes"] == 3

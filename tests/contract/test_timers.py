"""What does not come in time, or is not taken in time, ends its connection; what takes long inside does not.

The limits are set small, and each test waits for what happens, never for a time.
"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from app.errors import install_error_handlers
from app.server.protocol import PROBE_CONNECTIONS, Limits
SPARE_CONNECTIONS=PROBE_CONNECTIONS;MAX_REST_BYTES=2**20;MAX_HELD_BYTES=2**20
from tests.conftest import listening, serving
from tests.contract.wire import Address, answers, connection, send, until_closed

GET = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
UNREAD = b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
QUICK = Limits(receive_timeout_s=0.2)


@dataclass
class Seen:
    """What the app saw."""

    gone: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


def make_app(seen: Seen) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/now", operation_id="get")
    @app.post("/now", operation_id="post")
    async def now() -> dict[str, str]:
        return {"answer": "now"}

    @app.get("/later")
    def later() -> dict[str, str]:
        seen.begun.set()
        assert seen.go_on.wait(60)
        return {"answer": "later"}

    @app.post("/read")
    async def read(request: Request) -> dict[str, int]:
        try:
            return {"bytes": len(await request.body())}
        except ClientDisconnect:
            seen.gone.set()
            raise

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(2**20)
                    await asyncio.sleep(0)  # what is sent to a caller that has gone is dropped, and waits for nothing
            finally:
                seen.gone.set()

        return StreamingResponse(pieces())

    return app


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def address(seen: Seen) -> Iterator[Address]:
    with listening(make_app(seen), QUICK, keep_alive_s=1) as client:
        yield client.base_url.host, client.base_url.port or 0


def test_a_caller_that_says_nothing_is_let_go(address):
    with connection(address) as caller:
        assert until_closed(caller) == []


@pytest.mark.parametrize("beginning", [b"G", GET[:-2], GET[:-1], GET[:-2] + b"X: " + b"y" * 1000, b"\r\n", POST[:-2]])
def test_half_a_head_is_waited_for_only_so_long(address, beginning):
    with connection(address) as caller:
        send(caller, beginning)
        found = until_closed(caller)
    assert [(status, body["code"]) for status, body in found] == (
        [] if beginning == b"\r\n" else [(408, "request_timeout")]
    )


def trickle(caller: socket.socket, content: bytes) -> None:
    """Send byte after byte until there is an answer."""
    caller.settimeout(0.02)
    for at in range(len(content)):
        send(caller, content[at : at + 1])
        try:
            if caller.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
    caller.settimeout(60)


@pytest.mark.parametrize("start", [b"GET /now HTTP/1.1\r\nHost: x\r\nA: ", POST, b"\r\nGET /"])
def test_bytes_one_by_one_gain_no_time(address, start):
    with connection(address) as caller:
        send(caller, start)
        trickle(caller, b"x" * 900)
        assert [status for status, _ in until_closed(caller)] == [408]


@pytest.mark.parametrize("body", [b"", b"half"])
def test_half_a_body_is_waited_for_only_so_long_and_the_app_is_told(address, seen, body):
    with connection(address) as caller:
        send(caller, POST + body)
        ((status, problem),) = until_closed(caller)
        assert (status, problem["code"]) == (408, "request_timeout")
    assert seen.gone.wait(60)


def test_an_offer_of_another_protocol_gains_no_time(seen):
    app, ahead = make_app(seen), [0.0]

    @app.get("/clock")
    async def clock() -> dict[str, str]:
        # Of this server's loop alone, and for the rest of its life: others in the process must not see time go back.
        asyncio.get_running_loop().time = lambda: time.monotonic() + ahead[0]  # type: ignore[method-assign]
        return {}

    head = POST.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    with (
        listening(app, Limits(receive_timeout_s=1000)) as client,
        connection((client.base_url.host, client.base_url.port or 0)) as caller,
    ):
        client.get("/clock")
        send(caller, head[:10])
        client.get("/now")  # by then the other side has read it
        ahead[0] = 900.0
        send(caller, head[10:] + b"half")
        client.get("/now")
        ahead[0] = 1100.0
        send(caller, b"more")  # which wakes the loop
        ((status, problem),) = until_closed(caller)
    assert (status, problem["code"]) == (408, "request_timeout")


def test_who_sends_more_than_is_held_has_the_answers_that_are_coming_and_no_others(seen):
    with (
        listening(make_app(seen), Limits(receive_timeout_s=60)) as client,
        connection((client.base_url.host, client.base_url.port or 0)) as caller,
    ):
        send(caller, LATER + GET)
        assert seen.begun.wait(60)
        send(caller, GET * (2 * MAX_HELD_BYTES // len(GET)))
        client.get("/now")  # by then the other side has read it
        seen.go_on.set()
        assert [body["answer"] for _, body in until_closed(caller)] == ["later", "now"]


def test_an_answered_request_whose_body_never_ends_is_let_go(address):
    with connection(address) as caller:
        send(caller, UNREAD + b"half")
        assert [status for status, _ in until_closed(caller)] == [200]


def test_an_answered_request_is_not_read_for_ever(seen):
    with listening(make_app(seen), Limits(receive_timeout_s=60)) as client:
        sent = 0
        with connection((client.base_url.host, client.base_url.port or 0)) as caller, suppress(OSError):
            send(caller, UNREAD)
            assert [status for status, _ in answers(caller, 1)] == [200]
            while sent < 100 * MAX_REST_BYTES:
                sent += caller.send(bytes(2**16))
        assert sent < 100 * MAX_REST_BYTES


def test_a_small_rest_of_a_body_does_not_cost_the_connection(address):
    with connection(address) as caller:
        send(caller, b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        assert [status for status, _ in answers(caller, 1)] == [200]
        send(caller, b"+half" + GET)
        assert [status for status, _ in answers(caller, 1)] == [200]


def test_a_connection_without_a_next_request_is_let_go(address):
    with connection(address) as caller:
        send(caller, GET + GET)
        assert [status for status, _ in until_closed(caller)] == [200, 200]


def test_what_takes_long_inside_is_not_harmed(address, seen):
    with connection(address) as caller, connection(address) as other:
        send(caller, LATER)
        assert seen.begun.wait(60)
        send(other, b"half")
        assert until_closed(other)  # by now the other one's time, and with it ours, is over
        seen.go_on.set()
        assert [body["answer"] for _, body in answers(caller, 1)] == ["later"]


@pytest.mark.parametrize("rest", [GET[:-2], POST + b"half"])
def test_a_whole_request_is_answered_though_the_time_of_the_next_one_is_over(address, seen, rest):
    with connection(address) as caller, connection(address) as other:
        send(caller, LATER + rest)
        assert seen.begun.wait(60)
        send(other, b"half")
        assert until_closed(other)
        seen.go_on.set()
        assert [status for status, _ in until_closed(caller)] == [200, 408]


def test_a_caller_that_does_not_read_is_let_go(address, seen):
    with connection(address) as caller:
        send(caller, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert seen.gone.wait(60)


def test_a_caller_that_reads_too_slowly_is_let_go(address, seen):
    with connection(address) as caller:
        send(caller, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        while not seen.gone.wait(0.01):
            caller.recv(10)


def test_callers_over_the_bound_are_told_so_until_there_is_room(seen):
    with listening(make_app(seen), Limits(max_connections=2)) as client:
        address = client.base_url.host, client.base_url.port or 0
        with connection(address) as first, connection(address) as second:
            for caller in (first, second):
                send(caller, GET)
                assert [status for status, _ in answers(caller, 1)] == [200]
            with connection(address) as third:
                send(third, GET)
                ((status, body),) = until_closed(third)
                assert (status, body["code"]) == (503, "too_many_callers")
            send(first, GET)
            assert [status for status, _ in answers(first, 1)] == [200]
        assert 200 in (one_answer(address) for _ in range(1000))


def one_answer(address: Address) -> int:
    with connection(address) as caller:
        send(caller, GET)
        return answers(caller, 1)[0][0]


def test_far_too_many_callers_are_closed_and_the_others_go_on(seen):
    with listening(make_app(seen), Limits(max_connections=1)) as client:
        address = client.base_url.host, client.base_url.port or 0
        with connection(address) as first:
            send(first, GET)
            assert [status for status, _ in answers(first, 1)] == [200]
            others = [socket.create_connection(address, timeout=60) for _ in range(2 * SPARE_CONNECTIONS)]
            for other in others:
                send(other, GET)
            told = [[status for status, _ in until_closed(other)] for other in others]
            for other in others:
                other.close()
            assert {tuple(one) for one in told} == {(503,), ()}
            send(first, GET)
            assert [status for status, _ in answers(first, 1)] == [200]


def test_over_the_bound_of_callers_probes_are_answered_and_the_silent_let_go():
    with serving(max_connections=1, receive_timeout_s=600) as client:
        assert client.get("/livez").status_code == 200  # on the connection that it keeps
        address = client.base_url.host, client.base_url.port
        for path, expected in {"/livez": 200, "/readyz": 200, "/metrics": 200, "/models": 503}.items():
            with socket.create_connection(address, timeout=60) as caller:
                caller.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                with caller.makefile("rb") as received:
                    assert received.read().startswith(b"HTTP/1.1 %d " % expected)  # until it is closed
        with socket.create_connection(address, timeout=60) as silent:
            assert silent.recv(1) == b""

"""A request that does not arrive in time, or a response that is not read in time, ends its connection.

The limits are small where a test waits for a timeout and out of reach where it must not expire.
"""

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest

from app.server.protocol import PROBE_CONNECTIONS, Limits
from tests.conftest import listening, serving
from tests.contract.wire import address_of, answers, connection, send, until_closed
from tests.server.conftest import make_app

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
UNREAD = POST.replace(b"/echo", b"/unread")
ENDLESS = b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"
QUICK = Limits(receive_timeout_s=0.2)
PATIENT = Limits(receive_timeout_s=600)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_client_that_sends_no_request_is_disconnected(start, sent):
    with connection(start(QUICK)) as caller:
        send(caller, sent)
        assert until_closed(caller) == []


@pytest.mark.parametrize("part", [b"G", GET[:-1], GET[:-2] + b"X: " + b"y" * 1000, POST[:-2], POST, POST + b"half"])
def test_an_incomplete_request_times_out(start, part):
    with connection(start(QUICK)) as caller:
        send(caller, part)
        assert [(status, body["code"]) for status, body in until_closed(caller)] == [(408, "request_timeout")]


def test_the_app_is_told_that_the_rest_of_a_body_will_not_come(start, gate):
    with connection(start(QUICK)) as caller:
        send(caller, POST + b"half")
        assert gate.gone.wait(60)


@pytest.mark.parametrize("beginning", [b"GET /echo HTTP/1.1\r\nHost: x\r\nA: ", POST, b"\r\nGET /"])
def test_bytes_one_by_one_gain_no_time(start, beginning):
    with connection(start(QUICK)) as caller:
        send(caller, beginning)
        caller.settimeout(0.02)
        for _ in range(900):
            send(caller, b"x")
            try:
                caller.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        caller.settimeout(60)
        assert [status for status, _ in until_closed(caller)] == [408]


def test_an_offer_of_another_protocol_gains_no_time(gate):
    app, ahead = make_app(gate), [0.0]

    @app.get("/clock")
    async def clock() -> dict[str, str]:
        # Of this server's loop alone and for the rest of its life: others in the process must not see time go back.
        asyncio.get_running_loop().time = lambda: time.monotonic() + ahead[0]  # type: ignore[method-assign]
        return {}

    head = POST.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    with (
        listening(app, Limits(receive_timeout_s=1000), keep_alive_s=10_000) as client,
        connection(address_of(client)) as caller,
    ):
        client.get("/clock")
        send(caller, head[:10])
        client.get("/echo")  # by now the other side has read it
        ahead[0] = 900.0
        send(caller, head[10:] + b"half")
        client.get("/echo")
        ahead[0] = 1100.0
        send(caller, b"more")  # which wakes the loop
        assert [status for status, _ in until_closed(caller)] == [408]


def test_a_body_that_is_never_complete_ends_the_connection_of_a_request_that_has_its_response(start):
    with connection(start(QUICK)) as caller:
        send(caller, UNREAD + b"half")
        assert [status for status, _ in until_closed(caller)] == [200]


@pytest.mark.parametrize("last", [GET, UNREAD + bytes(1000) + b"\r\n"])
def test_a_connection_without_a_next_request_is_closed(start, last):
    with connection(start(PATIENT, keep_alive_s=1)) as caller:
        send(caller, GET + last)
        assert [status for status, _ in until_closed(caller)] == [200, 200]


@pytest.mark.parametrize("behind", [b"", GET[:-2], POST + b"half"])
def test_a_complete_request_is_answered_however_long_that_takes(start, gate, behind):
    address = start(QUICK)
    with connection(address) as caller, connection(address) as other:
        send(caller, LATER + behind)
        assert gate.begun.wait(60)
        send(other, b"half")
        assert until_closed(other)  # by now the time of what is behind is over, too
        gate.go_on.set()
        assert [status for status, _ in answers(caller, 1)] == [200]


def test_a_client_that_does_not_read_is_disconnected(start, gate):
    with connection(start(QUICK)) as caller:
        send(caller, ENDLESS)
        assert gate.gone.wait(60)


def test_a_client_that_reads_too_slowly_is_disconnected(start, gate):
    with connection(start(QUICK)) as caller:
        send(caller, ENDLESS)
        while not gate.gone.wait(0.01):
            caller.recv(10)


def test_half_open_connections_do_not_keep_others_from_being_served(start):
    address = start(PATIENT)
    with ExitStack() as stack:
        for number in range(60):
            send(stack.enter_context(connection(address)), GET[: number % len(GET)])
        caller = stack.enter_context(connection(address))
        send(caller, GET)
        assert [status for status, _ in answers(caller, 1)] == [200]


def test_connections_above_the_bound_are_refused_until_there_is_room(start):
    address = start(Limits(600, max_connections=2))
    with connection(address) as first, connection(address) as second:
        for caller in (first, second):
            send(caller, GET)
            assert [status for status, _ in answers(caller, 1)] == [200]
        with connection(address) as third:
            send(third, GET)
            assert [(status, body["code"]) for status, body in until_closed(third)] == [(503, "too_many_callers")]
        send(first, GET)
        assert [status for status, _ in answers(first, 1)] == [200]
    while True:  # the other side notices in its own time that they are closed
        with connection(address) as caller:
            send(caller, GET)
            if [status for status, _ in answers(caller, 1)] == [200]:
                break


def test_connections_far_above_the_bound_are_closed(start):
    address = start(Limits(600, max_connections=1))
    with ExitStack() as stack:
        first, *others = [stack.enter_context(connection(address)) for _ in range(2 * PROBE_CONNECTIONS)]
        for caller in (first, *others):
            send(caller, GET)
        assert [status for status, _ in answers(first, 1)] == [200]
        assert {status for other in others for status, _ in until_closed(other)} <= {503}


def test_above_the_bound_probes_are_answered_and_silent_connections_closed():
    with serving(models="lenet", max_connections=1, receive_timeout_s=600) as client:
        assert client.get("/livez").status_code == 200  # on the connection that it keeps
        address = address_of(client)
        for path, expected in {"/livez": 200, "/readyz": 200, "/metrics": 200, "/models": 503}.items():
            with connection(address) as caller:
                send(caller, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                assert [status for status, _ in until_closed(caller)] == [expected]
        with connection(address) as silent:
            assert until_closed(silent) == []

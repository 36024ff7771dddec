"""Requests that two readers could take for different ones are refused, before the app sees them."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from app.errors import install_error_handlers
from tests.conftest import listening
from tests.contract.wire import Address, answers, connection, send
from tests.corpus.wires import TWO_WAYS

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/echo", operation_id="get")
    @app.post("/echo", operation_id="post")
    async def echo(request: Request) -> dict[str, object]:
        return {"bytes": len(await request.body()), "host": request.headers.get("host"), "path": request.url.path}

    with listening(app) as client:
        yield client.base_url.host, client.base_url.port or 0


@pytest.mark.parametrize("content", TWO_WAYS.values(), ids=TWO_WAYS.keys())
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(address, content):
    with connection(address) as caller:
        send(caller, content + GET)
        ((status, body),) = answers(caller, 3)
        assert (status, body["status"], body["code"]) == (400, 400, "bad_request")


@pytest.mark.parametrize("content", TWO_WAYS.values(), ids=TWO_WAYS.keys())
def test_what_was_whole_before_it_is_answered(address, content):
    with connection(address) as caller:
        send(caller, GET + content + GET)
        assert [status for status, _ in answers(caller, 4)] == [200, 400]


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://y/echo", "/echo"), (b"HTTP://Y:80/echo?a=b", "/echo"), (b"https://[::1]:8/echo", "/echo")],
)
def test_an_absolute_target_is_read_and_its_host_counts(address, target, path):
    with connection(address) as caller:
        send(caller, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        ((status, body),) = answers(caller, 1)
        assert (status, body["path"]) == (200, path)
        assert body["host"] == target.split(b"/")[2].decode()


@pytest.mark.parametrize("target", [b"http://y", b"http://y?a=b", b"*", b"//echo", b"/%00", b"/%ff", b"/.."])
def test_a_target_that_names_nothing_gets_the_apps_own_answer(address, target):
    with connection(address) as caller:
        send(caller, b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + GET)
        assert [status for status, _ in answers(caller, 2)] == [404, 200]


def test_http_1_0_needs_no_host(address):
    with connection(address) as caller:
        send(caller, b"GET /echo HTTP/1.0\r\n\r\n")
        assert [status for status, _ in answers(caller, 2)] == [200]


@pytest.mark.parametrize("host", [b"", b"x:8000", b"127.0.0.1", b"[::1]:8000", b"a_b.c-d.e."])
def test_a_host_may_be_any_name_or_address(address, host):
    with connection(address) as caller:
        send(caller, b"GET /echo HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert [status for status, _ in answers(caller, 1)] == [200]

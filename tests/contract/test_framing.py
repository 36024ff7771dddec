"""Requests that two readers could take for different ones are refused, before the app sees them."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from app.errors import install_error_handlers
from tests.conftest import listening
from tests.contract.wire import Address, answers, connection, send

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO = b"5\r\nabcde\r\n0\r\n\r\n"
TWO_WAYS = {
    "no request at all": b"no request at all\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/0.9, said": b"GET /echo HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /echo HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/3": b"GET /echo HTTP/3.0\r\nHost: x\r\n\r\n",
    "lower-case protocol": b"GET /echo http/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get /echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW /echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /e cho HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the target": b"GET /e\tcho HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target in UTF-8": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a query that is not ASCII": b"GET /echo?\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a zero byte in the target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /echo#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another scheme": b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target without a host": b"GET http:///echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target with a user": b"GET http://u@x/echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "a wrong address": b"GET http://[::1/echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "no host, after an absolute target": b"GET http://x/echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "the same host twice": b"GET /echo HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "a host with a path": b"GET /echo HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a host with a user": b"GET /echo HTTP/1.1\r\nHost: u@x\r\n\r\n",
    "two hosts in one": b"GET /echo HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "a port that is none": b"GET /echo HTTP/1.1\r\nHost: x:http\r\n\r\n",
    "a host that is not ASCII": b"GET /echo HTTP/1.1\r\nHost: \xff\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /echo HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + HELLO,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a signed length": HEAD + b"Content-Length: +5\r\n\r\nabcde",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x5\r\n\r\nabcde",
    "a length with a fraction": HEAD + b"Content-Length: 5.0\r\n\r\nabcde",
    "no length after all": HEAD + b"Content-Length: \r\n\r\nabcde",
    "a length over 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "the same length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "two lengths in one": HEAD + b"Content-Length: 5, 5\r\n\r\nabcde",
    "a length in words": HEAD + b"Content-Length: five\r\n\r\nabcde",
    "spaces within a length": HEAD + b"Content-Length: 1 2\r\n\r\nabcde",
    "compressed chunks": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + HELLO,
    "chunks compressed": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + HELLO,
    "chunks in chunks": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + HELLO,
    "chunks, twice said": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + HELLO,
    "a coding in quotes": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + HELLO,
    "the identity coding": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde",
    "a coding with a parameter": HEAD + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + HELLO,
    "chunks in HTTP/1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "a chunk of a negative length": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "a chunk in decimal with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "a chunk without a length": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\nabcde\r\n0\r\n\r\n",
    "a chunk that is too short": HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcde\r\n0\r\n\r\n",
    "a chunk that is too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcde\r\n0\r\n\r\n",
    "a chunk over 64 bits": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "chunks with bare newlines": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n",
    "a space before the colon": b"GET /echo HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    "a space in a header's name": b"GET /echo HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n",
    "a header without a name": b"GET /echo HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n",
    "a header without a colon": b"GET /echo HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "a header's name that is not ASCII": b"GET /echo HTTP/1.1\r\nHost: x\r\n\xc3\xa9: c\r\n\r\n",
    "a folded header": b"GET /echo HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a folded first header": b"GET /echo HTTP/1.1\r\n Host: x\r\n\r\n",
    "a folded length": HEAD + b"Content-Length:\r\n 5\r\n\r\nabcde",
    "a zero byte in a header": b"GET /echo HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "a carriage return in a header": b"GET /echo HTTP/1.1\r\nHost: x\r\nA: b\rc: d\r\n\r\n",
    "a control character in a header": b"GET /echo HTTP/1.1\r\nHost: x\r\nA: b\x01c\r\n\r\n",
    "lines that end in carriage returns": b"GET /echo HTTP/1.1\rHost: x\r\r",
    "lines that end in newlines": b"GET /echo HTTP/1.1\nHost: x\n\n",
    "an end in a bare newline": b"GET /echo HTTP/1.1\r\nHost: x\r\n\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}


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

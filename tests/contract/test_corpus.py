"""The corpora of files and of timeouts against the service: it never fails and never echoes input.

The corpora of JSON bodies, queries and forms are tested in tests/api, that of framing in tests/server.
"""

import httpx
import pytest

from tests.api.reading import problem_of
from tests.contract.wire import address_of, answers, connection, send
from tests.corpus import files, wires

ALIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def assert_refused(answer: httpx.Response, status: int = 422, code: str = "invalid_image") -> None:
    problem_of(answer, status, code)
    assert len(answer.content) < 4000


@pytest.mark.parametrize("head", [b"GET /interpolate", b"POST /generate"], ids=["interpolate", "generate"])
@pytest.mark.parametrize("line", wires.WRONG_TIMEOUTS.values(), ids=wires.WRONG_TIMEOUTS)
def test_a_bad_timeout_is_refused(client, head, line):
    # Over a socket, as an HTTP client would send neither two headers of a name nor bytes that are not ASCII.
    request = b"%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n\r\n"
    body = b"{}" if head.startswith(b"POST") else b""
    with connection(address_of(client)) as caller:
        send(caller, request % (head, len(body), line) + body + ALIVE)
        (status, refusal), (after, _) = answers(caller, 2)
    assert (status, refusal["code"], after) == (422, "invalid_request", 200)


@pytest.mark.parametrize("path", ["/normalize", "/reconstruct", "/score", "/classify", "/upscale"])
@pytest.mark.parametrize("content", files.BAD.values(), ids=files.BAD)
def test_a_bad_file_is_refused(labelled, path, content):
    answer = labelled.post(path, content=content, headers={"Content-Type": "application/octet-stream"})
    assert_refused(answer, *((413, "body_too_large") if len(content) > 2**23 else ()))


@pytest.mark.parametrize("path", ["/score", "/classify", "/upscale"])
@pytest.mark.parametrize("contents", files.TOO_MUCH.values(), ids=files.TOO_MUCH)
def test_files_that_take_long_together_are_refused(labelled, path, contents):
    answer = labelled.post(path, files=[("files", content) for content in contents])
    assert_refused(answer)


@pytest.mark.parametrize("path", ["/normalize", "/reconstruct", "/upscale"])
@pytest.mark.parametrize("content", files.ODD.values(), ids=files.ODD)
def test_an_unusual_file_is_read_or_refused(labelled, path, content):
    answer = labelled.post(path, content=content, headers={"Content-Type": "image/png"})
    if answer.status_code != 200:
        assert_refused(answer)

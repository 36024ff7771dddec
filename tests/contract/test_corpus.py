"""The corpus against the service as it ships: everything is refused as a problem that does not repeat the input.

`wires.TWO_WAYS` is in tests/server/test_framing.py, as it never reaches the app.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import FIXTURES, serving
from tests.contract.wire import Address, answers, connection, send
from tests.corpus import files, forms, texts, wires

DIGIT = (FIXTURES / "mnist" / "7.png").read_bytes()
FORMS = forms.forms(DIGIT)
JSON_TYPE = {"Content-Type": "application/json"}
ALIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
MEMBERS = {
    "/generate": texts.WRONG_FIELDS | texts.WRONG_LATENTS | texts.WRONG_CHOICES,
    "/interpolate": texts.WRONG_ENDS | texts.WRONG_CHOICES,
    # The fields that it shares with /generate; an unknown model is another error here.
    "/score": {name: text for name, text in texts.WRONG_FIELDS.items() if not name.startswith("n has")}
    | texts.WRONG_CHOICES,
}
OBJECTS = [
    pytest.param(path, b"{" + text.encode() + b"}", id=f"{path}-{name}")
    for path, members in MEMBERS.items()
    for name, text in members.items()
]
TEXTS = [
    pytest.param(path, body, id=f"{path}-{name}")
    for path in MEMBERS
    for name, body in (texts.NO_JSON | texts.NO_OBJECT).items()
]
# Texts from the corpus that no response may repeat.
ECHOED = (b"script", b"jndi", b"passwd", b"__proto__", b"xxxxxxxxxx", b"99999999999999999999")


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    with serving() as client:
        yield client
        # Afterwards the service still serves, and nothing in it has failed.
        assert client.post("/generate", json={"n": 1}).status_code == 200
        page = client.get("/metrics").text
        assert 'digits_rejections_total{code="internal_error"}' not in page
        assert 'digits_rejections_total{code="inference_failed"}' not in page


@pytest.fixture(scope="module")
def address(service: httpx.Client) -> Address:
    return service.base_url.host, service.base_url.port or 0


def assert_refused(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 4000
    assert not [word for word in ECHOED if word in answer.content]


@pytest.mark.parametrize(("path", "body"), OBJECTS)
def test_a_bad_object_is_refused(service, path, body):
    assert_refused(service.post(path, content=body, headers=JSON_TYPE), 422)


@pytest.mark.parametrize(("path", "body"), TEXTS)
def test_a_bad_text_is_refused(service, path, body):
    assert_refused(service.post(path, content=body, headers=JSON_TYPE), 422)


@pytest.mark.parametrize("query", texts.WRONG_QUERIES.values(), ids=texts.WRONG_QUERIES.keys())
def test_a_bad_query_is_refused(address, service, query):
    # Over a socket, as an HTTP client would correct it.
    with connection(address) as caller:
        send(caller, b"GET /interpolate?%b HTTP/1.1\r\nHost: x\r\n\r\n" % query.encode() + ALIVE)
        (status, body), (after, _) = answers(caller, 2)
    assert (status, after) == (431 if len(query) > 65536 else 422, 200)
    assert body["code"] == "invalid_request"
    assert not [word for word in ECHOED if word.decode() in str(body)]


@pytest.mark.parametrize("head", [b"GET /interpolate", b"POST /generate"], ids=["walk", "images"])
@pytest.mark.parametrize("line", wires.WRONG_TIMEOUTS.values(), ids=wires.WRONG_TIMEOUTS.keys())
def test_a_bad_timeout_is_refused(address, service, head, line):
    # Over a socket, as an HTTP client would send neither two headers of a name nor bytes that are not ASCII.
    asked = b"%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n\r\n"
    body = b"{}" if head.startswith(b"POST") else b""
    with connection(address) as caller:
        send(caller, asked % (head, len(body), line) + body + ALIVE)
        (status, refusal), (after, _) = answers(caller, 2)
    assert (status, after) == (422, 200)
    assert refusal["code"] == "invalid_request"
    assert refusal["detail"] == "X-Request-Timeout is one number of seconds above 0"


@pytest.mark.parametrize("path", ["/reconstruct", "/score"])
@pytest.mark.parametrize("content", files.BAD.values(), ids=files.BAD.keys())
def test_a_bad_file_is_refused(service, path, content):
    answer = service.post(path, content=content, headers={"Content-Type": "application/octet-stream"})
    assert_refused(answer, 413 if len(content) > 2**20 else 422)


@pytest.mark.parametrize("contents", files.TOO_MUCH.values(), ids=files.TOO_MUCH.keys())
def test_files_that_take_long_together_are_refused(service, contents):
    answer = service.post("/score", files=[("files", content) for content in contents])
    assert_refused(answer, 422)
    assert answer.json()["detail"].startswith("The images of a request may have 4194304 pixels in all")


@pytest.mark.parametrize("content", files.ODD.values(), ids=files.ODD.keys())
def test_an_odd_file_is_read_or_refused(service, content):
    answer = service.post("/reconstruct", content=content, headers={"Content-Type": "image/png"})
    assert answer.status_code in {200, 422}


@pytest.mark.parametrize(("kind", "body"), FORMS.values(), ids=FORMS.keys())
def test_a_bad_form_is_refused(service, kind, body):
    headers = {"Content-Type": kind.encode("latin-1")}
    assert_refused(service.post("/reconstruct", content=body, headers=headers), 413, 415, 422)

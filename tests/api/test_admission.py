"""Requests, bytes and rows have their bounds, and whoever is over one is told at once."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.api.reading import problem_of
from tests.api.test_health import metric
from tests.conftest import ROOT, WatchedReadiness, listening, serving
from tests.contract.wire import answers, connection, send, until_closed


@contextmanager
def half_a_request(
    client: httpx.Client, length: int, path: str = "/generate", kind: str = "application/json"
) -> Iterator[None]:
    """A caller that has said how long its body is, and sends none of it."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as caller:
        before = in_flight(client)
        caller.sendall(head.encode())
        while in_flight(client) == before:  # the other side of a socket can only be asked
            pass
        yield
    while in_flight(client) > before:
        pass


def in_flight(client: httpx.Client) -> float:
    return metric(client.get("/metrics").text, "digits_requests_in_flight")


def test_requests_over_the_bound_are_refused_before_their_bodies_are_read():
    with serving(max_requests=1) as client, half_a_request(client, 30):
        answer = client.post("/generate", content=b"no JSON at all", headers={"Content-Type": "application/json"})
        problem_of(answer, 503, "overloaded")
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        page = client.get("/metrics").text
        assert metric(page, "digits_rejections_total", code="overloaded") == 1
        assert metric(page, "digits_request_seconds_count", method="POST", route="unmatched", status="503") == 1


def test_health_and_metrics_answer_when_nothing_else_is_admitted():
    with serving(max_requests=1) as client, half_a_request(client, 30):
        for path in ("/livez", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200
        problem_of(client.get("/models"), 503, "overloaded")


def test_a_place_is_free_again_once_its_request_has_ended():
    with serving(max_requests=1) as client:
        for _ in range(3):
            with half_a_request(client, 30):
                problem_of(client.post("/generate", json={}), 503, "overloaded")
            for body in ({}, {"n": 0}):
                assert client.post("/generate", json=body).status_code in {200, 422}
        assert in_flight(client) == 0


def test_bytes_that_bodies_may_have_are_bounded_before_they_come():
    settings = {"max_bytes_in_flight": 2**20, "max_upload_bytes": 2**20}
    with serving(**settings) as client, half_a_request(client, 2**20, "/reconstruct", "image/png"):
        page = client.get("/metrics").text
        assert metric(page, "digits_body_bytes_in_flight") == 2**20
        problem_of(client.post("/generate", json={}), 503, "overloaded")

        def endless() -> Iterator[bytes]:
            yield b"{}"

        problem_of(client.post("/generate", content=endless()), 503, "overloaded")
        assert client.get("/models").status_code == 200  # it has no body


HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\n%b\r\n\r\n"


@pytest.mark.parametrize(("length", "held"), [(b"Content-Length: 300", 300), (b"Transfer-Encoding: chunked", 1024)])
def test_a_body_of_json_takes_no_more_room_than_json_may_have(length, held):
    with (
        serving(max_bytes_in_flight=2**20, max_upload_bytes=2**20, max_json_bytes=1024) as client,
        socket.create_connection((client.base_url.host, client.base_url.port)) as caller,
    ):
        caller.sendall(HEAD % (b"/generate", b"Application/JSON; a=b", length))
        while in_flight(client) == 0:
            pass
        assert metric(client.get("/metrics").text, "digits_body_bytes_in_flight") == held
        assert client.post("/generate", json={}).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/generate", b"application/json"),
        (b"/score", b"image/png"),
        (b"/reconstruct", b"multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(client, path, kind):
    with connection((client.base_url.host, client.base_url.port)) as caller:
        send(caller, HEAD % (path, kind, b"Content-Length: 9999999"))
        ((status, problem),) = answers(caller, 1)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_rows_are_refused_after_parsing_and_before_anything_is_decoded():
    readiness = WatchedReadiness()
    settings = Settings(models_dir=ROOT / "models", device="cpu", max_images=16, max_queued_rows=16)
    with listening(create_app(settings, readiness=readiness)) as client:
        assert readiness.ended.wait(120)

        def upload(path: str) -> httpx.Response:
            return client.post(path, content=b"no image at all", headers={"Content-Type": "image/png"})

        with readiness.engine().admit(16):
            assert metric(client.get("/metrics").text, "digits_rows_in_flight") == 16
            problem_of(upload("/reconstruct?model=nobody"), 404, "model_not_found")
            for path in ("/reconstruct", "/score"):
                problem_of(upload(path), 503, "overloaded")
            files = [("files", b"no image"), ("files", b"no image")]
            problem_of(client.post("/interpolate", files=files), 503, "overloaded")
            for path in ("/generate", "/score", "/interpolate"):
                problem_of(client.post(path, json={}), 503, "overloaded")
            problem_of(client.get("/interpolate"), 503, "overloaded")
        for path in ("/reconstruct", "/score"):
            problem_of(upload(path), 422, "invalid_image")
        assert client.post("/generate", json={"n": 16}).status_code == 200
        assert metric(client.get("/metrics").text, "digits_rows_in_flight") == 0


def head(method: str, path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *lines, "", ""]).encode()


def test_a_refused_caller_keeps_its_connection_and_its_body_is_not_taken_for_a_request():
    body = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
    refused = head("POST", "/generate", f"Content-Length: {len(body)}") + body
    with serving(max_requests=1) as client, half_a_request(client, 30):
        address = (client.base_url.host, client.base_url.port or 80)
        with connection(address) as caller:
            for requests, expected in (
                (refused * 3 + head("GET", "/livez"), [503, 503, 503, 200]),
                (head("GET", "/livez") + refused + head("GET", "/livez"), [200, 503, 200]),
            ):
                send(caller, requests)
                assert [status for status, _ in answers(caller, len(expected))] == expected
            for byte in refused:
                send(caller, bytes([byte]))
            assert [status for status, _ in answers(caller, 1)] == [503]
        page = client.get("/metrics").text
        assert metric(page, "digits_rejections_total", code="overloaded") == 5


@pytest.mark.parametrize(
    "last", [head("GET", "/models", version="1.0"), head("GET", "/models", "Connection: close")], ids=["1.0", "close"]
)
def test_a_refused_caller_that_wants_no_more_is_let_go(last):
    with (
        serving(max_requests=1) as client,
        half_a_request(client, 30),
        connection((client.base_url.host, client.base_url.port or 80)) as caller,
    ):
        send(caller, last + head("GET", "/livez"))
        assert [status for status, _ in until_closed(caller)] == [503]


def test_a_refusal_of_a_head_request_has_no_content():
    with serving(max_requests=1) as client, half_a_request(client, 30):
        answer = client.head("/models")
        assert answer.status_code == 503
        assert answer.content == b""
        assert client.get("/livez").status_code == 200


def test_a_refusal_may_be_read_by_a_web_page_of_a_listed_origin():
    with serving(max_requests=1, cors_origins="https://a.org") as client, half_a_request(client, 30):
        answer = client.get("/models", headers={"Origin": "https://a.org"})
        problem_of(answer, 503, "overloaded")
        assert answer.headers["access-control-allow-origin"] == "https://a.org"


def test_another_host_is_refused_as_such_also_when_there_is_no_room():
    with serving(max_requests=1, allowed_hosts="127.0.0.1,x") as client, half_a_request(client, 30):
        problem_of(client.get("/models", headers={"Host": "elsewhere.org"}), 421, "misdirected_request")
        problem_of(client.get("/models"), 503, "overloaded")


HTTP_1_0 = head("GET", "/models", "Connection: keep-alive", version="1.0")


def keep_sending(caller: socket.socket, client: httpx.Client) -> None:
    """Until the other side does not take it; raises OSError then."""
    while True:
        caller.sendall(b"x" * 1000)
        client.get("/livez")


@pytest.mark.parametrize(
    "content",
    [HTTP_1_0 + head("GET", "/livez"), HTTP_1_0 * 2],
    ids=["and a probe", "and another"],
)
def test_what_comes_behind_a_last_refusal_is_not_heard_and_holds_nothing(content, caplog):
    with (
        serving(max_requests=1) as client,
        half_a_request(client, 30),
        connection((client.base_url.host, client.base_url.port or 80)) as caller,
    ):
        before = metric(client.get("/metrics").text, "digits_rejections_total", code="overloaded")
        send(caller, content)
        assert [status for status, _ in until_closed(caller)] == [503]
        # The caller keeps its half open: the connection is let go all the same.
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            keep_sending(caller, client)
        assert metric(client.get("/metrics").text, "digits_rejections_total", code="overloaded") == before + 1
    assert "Traceback" not in caplog.text

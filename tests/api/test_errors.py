"""Faults that belong to no single operation: types, sizes, paths, methods, and faults of our own."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app import errors
from app.inference.engine import Engine
from tests.api.reading import problem_of
from tests.conftest import FIXTURES, serving

POSTS = ["/generate", "/reconstruct", "/interpolate", "/score"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_a_body_of_a_type_that_is_not_read_is_refused(client, path, content_type):
    answer = client.post(path, content=b"{}", headers={"Content-Type": content_type})
    body = problem_of(answer, 415, "unsupported_media_type")
    assert "Content-Type" in body["detail"]


@pytest.mark.parametrize("path", POSTS)
def test_a_compressed_body_is_refused(client, path):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem_of(client.post(path, content=b"x", headers=headers), 415, "unsupported_media_type")


def test_json_is_not_read_where_files_are_wanted(client):
    problem_of(client.post("/reconstruct", json={}), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/generate", "/interpolate", "/score"])
def test_options_beside_a_json_body_are_refused(client, path):
    problem_of(client.post(path, params={"n": 3}, json={}), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/reconstruct", "/interpolate", "/score"])
def test_an_option_given_twice_is_refused(client, digit, path):
    answer = client.post(f"{path}?model=vae&model=gan", files={"file": digit})
    problem_of(answer, 422, "invalid_request")


@pytest.mark.parametrize("charset", ["undefined", "punycode", "nonsense", "utf-16"])
def test_an_odd_charset_of_a_form_is_no_fault_of_ours(client, charset):
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--B--\r\n'
    content_type = f"multipart/form-data; boundary=B; charset={charset}"
    answer = client.post("/reconstruct", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid_request", "invalid_image"}


@pytest.mark.parametrize("path", ["/generate", "/interpolate", "/score"])
def test_a_json_body_over_the_limit_is_refused(client, path):
    body = b" " * (16 * 1024 + 1)
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    problem_of(answer, 413, "body_too_large")


def test_a_body_is_counted_as_it_comes_when_no_length_is_given(client):
    def chunks():
        for _ in range(100):
            yield b" " * 1024

    answer = client.post("/generate", content=chunks(), headers={"Content-Type": "application/json"})
    problem_of(answer, 413, "body_too_large")


@pytest.mark.parametrize("path", ["/generates", "/generate/", "/models/vae/archive", "/..%2f..%2fetc/passwd"])
def test_a_path_that_is_no_route_is_not_found(client, path):
    problem_of(client.post(path, json={}, follow_redirects=False), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("DELETE", "/models/vae", "GET, HEAD"),
        ("PUT", "/interpolate", "GET, HEAD, POST"),
        ("POST", "/docs", "GET, HEAD"),
        ("HEAD", "/score", "POST"),
    ],
)
def test_a_method_that_a_route_does_not_have_is_refused_naming_those_it_has(client, method, path, allowed):
    answer = client.request(method, path)
    if method != "HEAD":
        problem_of(answer, 405, "method_not_allowed")
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", POSTS)
def test_a_form_that_no_operation_answers_in_is_refused(client, path):
    answer = client.post(path, json={}, headers={"Accept": "text/html"})
    problem_of(answer, 406, "not_acceptable")


@pytest.mark.parametrize(
    "headers", [{"X-Large": "x" * 40_000}, {f"X-{number}": "x" for number in range(100)}], ids=["bytes", "count"]
)
def test_headers_over_the_limit_are_refused(client, headers):
    problem_of(client.get("/livez", headers=headers), 431, "headers_too_large")


def test_another_charset_than_utf_8_is_refused(client):
    for charset in ("utf-16", "latin-1", '"utf-32"', ""):
        headers = {"Content-Type": f"application/json; charset={charset}"}
        problem_of(client.post("/generate", content=b"{}", headers=headers), 415, "unsupported_media_type")
    for charset in ("utf-8", "UTF-8", '"utf-8"', "us-ascii"):
        headers = {"Content-Type": f"application/json; charset={charset}"}
        assert client.post("/generate", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_two_types_of_one_body_are_refused(client, path):
    headers = [("Content-Type", "application/json"), ("Content-Type", "application/json")]
    problem_of(client.post(path, content=b"{}", headers=headers), 415, "unsupported_media_type")


def test_a_second_coding_of_a_body_is_refused(client):
    headers = [("Content-Type", "application/json"), ("Content-Encoding", "identity"), ("Content-Encoding", "br")]
    problem_of(client.post("/generate", content=b"{}", headers=headers), 415, "unsupported_media_type")


def test_after_a_body_that_is_too_large_the_connection_is_closed(client):
    answer = client.post("/reconstruct", content=bytes(2**20 + 1), headers={"Content-Type": "image/png"})
    problem_of(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/models", "/models/vae"])
def test_a_query_where_there_are_no_options_is_refused(client, path):
    problem_of(client.get(path, params={"limit": 3}), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_scrapers_may_send_what_they_like(client, path):
    assert client.get(path, params={"now": 3}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/livez",
        "/readyz",
        "/metrics",
        "/models",
        "/models/vae",
        "/docs",
        "/openapi.json",
        "/interpolate?from_seed=1&to_seed=2",
    ],
)
def test_head_is_get_without_the_content(client, path):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"]


def test_uploads_over_what_may_wait_are_refused():
    with serving(decode_workers=1, max_waiting_uploads=1) as client, ThreadPoolExecutor(16) as callers:
        file = (FIXTURES / "drawings" / "2-table.jpg").read_bytes()
        headers = {"Content-Type": "image/jpeg"}
        answers = list(callers.map(lambda _: client.post("/score", content=file, headers=headers), range(32)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 32
        for answer in refused:
            problem_of(answer, 503, "overloaded")
        assert client.post("/score", content=file, headers=headers).status_code == 200


def test_every_answer_has_an_id_of_its_own(client):
    ids = {client.get("/livez").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_fault_of_our_own_is_a_500_that_tells_nothing_of_the_inside(monkeypatch, caplog):
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    with serving() as client:
        monkeypatch.setattr(Engine, "generate", broken)
        answer = client.post("/generate", json={})
        problem_of(answer, 500, "internal_error")
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        # The log tells it, under the id that the caller was given.
        assert f"request {answer.headers['x-request-id']} failed" in caplog.text
        assert "a secret of the inside" in caplog.text


def test_rows_over_the_queue_bound_are_refused_with_a_time_to_come_back():
    with serving(max_queued_rows=16, max_images=16, max_batch_rows=1, workers=1) as client:
        with ThreadPoolExecutor(32) as callers:
            answers = list(callers.map(lambda _: client.post("/generate", json={"n": 16}), range(32)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 32
        for answer in refused:
            problem_of(answer, 503, "overloaded")
            assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert client.post("/generate", json={"n": 16}).status_code == 200


def test_a_missed_deadline_is_a_504():
    with serving(request_timeout_s=1e-9) as client:
        problem_of(client.post("/generate", json={"n": 64}), 504, "deadline_exceeded")


def tree(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


def test_the_tree_drawn_in_the_module_is_the_tree_there_is():
    drawn = dict.fromkeys(
        (words[0], words[1], words[2].rstrip(","))
        for line in (errors.__doc__ or "").splitlines()
        if len(words := line.translate(str.maketrans("│├└─", "    ")).split()) >= 3 and words[1].isdigit()
    )
    assert set(drawn) == {(kind.__name__, str(kind.status), kind.code) for kind in tree(errors.ServiceError)}


def test_codes_are_unique():
    codes = [kind.code for kind in tree(errors.ServiceError)]
    assert len(codes) == len(set(codes))

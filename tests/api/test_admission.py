"""Bounds on the requests, bytes, rows and uploads in flight: a request over a bound is refused at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event, Semaphore

import pytest

from app.api import uploads
from app.api.admission import UNCOUNTED_BYTES
from app.images.decode import decode_image
from tests.api.reading import errors, measured, problem_of
from tests.conftest import serving
from tests.contract.process import until
from tests.contract.wire import address_of, answers, connection

PNG_TYPE = {"Content-Type": "image/png"}
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def one_request(tiny_models):
    with serving(
        models_dir=tiny_models, max_requests=1, allowed_hosts="127.0.0.1", cors_origins="https://a.org"
    ) as client:
        yield client


def test_a_request_over_the_bound_is_refused_before_its_body_is_read(one_request, gate):
    with gate.hold(one_request, "/generate", json={}):
        assert measured(one_request, "requests_in_flight") == 1
        before = errors(one_request, "overloaded")
        problem_of(one_request.post("/generate", content=b"no JSON", headers=JSON_TYPE), 503, "overloaded")
        problem_of(one_request.get("/models"), 503, "overloaded")
        assert errors(one_request, "overloaded") - before == 2
    assert measured(one_request, "requests_in_flight") == 0


def test_probes_and_metrics_are_never_refused(one_request, gate):
    with gate.hold(one_request, "/generate", json={}):
        for path in ("/livez", "/readyz", "/metrics"):
            assert one_request.get(path).status_code == 200


@pytest.mark.parametrize("body", [{}, {"n": 0}, {"model": "nobody"}])
def test_a_request_frees_its_place_however_it_ends(one_request, body):
    for _ in range(3):
        assert one_request.post("/generate", json=body).status_code in {200, 404, 422}


def test_a_refusal_can_be_read_by_a_page_of_a_listed_origin_and_not_at_another_host(one_request, gate):
    with gate.hold(one_request, "/generate", json={}):
        answer = one_request.get("/models", headers={"Origin": "https://a.org"})
        problem_of(answer, 503, "overloaded")
        assert answer.headers["access-control-allow-origin"] == "https://a.org"
        problem_of(one_request.get("/models", headers={"Host": "b.org"}), 421, "misdirected_request")


def test_bytes_count_as_they_arrive_without_the_first_of_each_body(tiny_models, digit, gate):
    with serving(models_dir=tiny_models) as client:
        padded = digit + bytes(UNCOUNTED_BYTES)  # what follows the end of a PNG is ignored
        with gate.hold(client, "/reconstruct", content=padded, headers=PNG_TYPE):
            assert bytes_in_flight(client) == len(digit)
        assert bytes_in_flight(client) == 0


def bytes_in_flight(client):
    return measured(client, "body_in_flight_bytes")


@contextmanager
def unfinished(client, sent):
    """A caller that declares a megabyte and has sent so many bytes of it."""
    head = f"POST /reconstruct HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {2**20}\r\n\r\n"
    with connection(address_of(client)) as caller:
        caller.sendall(head.encode() + bytes(sent))
        yield caller


def test_callers_that_send_no_body_take_nothing_from_others(tiny_models):
    with (
        serving(models_dir=tiny_models, max_requests=1, max_bytes_in_flight=2**20, max_upload_bytes=2**20) as client,
        ExitStack() as stack,
    ):
        for _ in range(8):
            stack.enter_context(unfinished(client, 0))
        assert client.post("/generate", json={}).status_code == 200
        assert measured(client, "requests_in_flight") == 0


def test_the_body_that_began_first_makes_room_for_others(tiny_models, digit):
    with (
        serving(models_dir=tiny_models, max_bytes_in_flight=2**20, max_upload_bytes=2**20) as client,
        unfinished(client, 600_000) as slow,
    ):
        until(lambda: bytes_in_flight(client) > 500_000)
        assert client.post("/reconstruct", content=digit + bytes(600_000), headers=PNG_TYPE).status_code == 200
        [(status, problem)] = answers(slow, 1)
        assert (status, problem["code"]) == (503, "overloaded")
        until(lambda: bytes_in_flight(client) == 0)


def test_a_body_is_refused_if_no_older_one_can_make_room(tiny_models, digit, gate):
    with serving(models_dir=tiny_models, max_bytes_in_flight=2**20, max_upload_bytes=2**20) as client:
        large = digit + bytes(600_000)
        with gate.hold(client, "/reconstruct", content=large, headers=PNG_TYPE):
            problem_of(client.post("/reconstruct", content=large, headers=PNG_TYPE), 503, "overloaded")
        assert client.post("/reconstruct", content=large, headers=PNG_TYPE).status_code == 200


def test_rows_are_bounded_and_admitted_after_the_request_is_valid_and_its_upload_is_decoded(tiny_models, gate, digit):
    with serving(models_dir=tiny_models, max_images=16, max_queued_rows=16) as client:

        def upload(path, content=digit):
            return client.post(path, content=content, headers=PNG_TYPE)

        with gate.hold(client, "/generate", json={"n": 16}):
            assert measured(client, "rows_in_flight") == 16
            problem_of(client.post("/generate", json={}), 503, "overloaded")
            problem_of(client.get("/interpolate"), 503, "overloaded")
            problem_of(client.post("/interpolate", files=[("files", digit)] * 2), 503, "overloaded")
            problem_of(upload("/reconstruct"), 503, "overloaded")
            problem_of(upload("/reconstruct", b"no image"), 422, "invalid_image")
            problem_of(upload("/reconstruct?model=nobody"), 404, "model_not_found")
            problem_of(client.post("/generate", json={"n": 17}), 422, "invalid_request")
        assert upload("/reconstruct").status_code == 200
        assert measured(client, "rows_in_flight") == 0


def test_uploaded_files_are_bounded_before_they_are_decoded(tiny_models, digit, monkeypatch):
    opened, reached = Event(), Semaphore(0)

    def held(*arguments):
        reached.release()
        assert opened.wait(60)
        return decode_image(*arguments[:1])

    monkeypatch.setattr(uploads, "decode_image", lambda content, **_: held(content))
    with serving(models_dir=tiny_models, max_queued_files=64) as client, ThreadPoolExecutor(64) as callers:
        waiting = [callers.submit(client.post, "/reconstruct", content=digit, headers=PNG_TYPE) for _ in range(64)]
        until(lambda: measured(client, "files_in_flight") == 64)
        problem_of(client.post("/reconstruct", content=digit, headers=PNG_TYPE), 503, "overloaded")
        opened.set()
        assert {caller.result().status_code for caller in waiting} == {200}
        assert measured(client, "files_in_flight") == 0

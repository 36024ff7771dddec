"""Bounds on the requests, bytes, rows and uploads in flight: a request over a bound is refused at once."""

import asyncio
from threading import Event, Semaphore

import pytest

from app.api.uploads import Decoders
from app.errors import Overloaded
from app.scoreboard import Scoreboard
from app.settings import Settings
from tests.api.reading import metric, problem_of
from tests.conftest import serving

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
        before = one_request.get("/metrics").text
        assert metric(before, "digits_requests_in_flight") == 1
        problem_of(one_request.post("/generate", content=b"no JSON", headers=JSON_TYPE), 503, "overloaded")
        problem_of(one_request.get("/models"), 503, "overloaded")
        page = one_request.get("/metrics").text
        counted = "digits_rejections_total"
        assert metric(page, counted, code="overloaded") - metric(before, counted, code="overloaded") == 2
    assert metric(one_request.get("/metrics").text, "digits_requests_in_flight") == 0


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


def chunked(content):
    yield content


def test_body_bytes_are_bounded_and_a_body_of_unknown_length_counts_as_the_longest(tiny_models, digit, gate):
    with serving(models_dir=tiny_models, max_bytes_in_flight=2**20, max_upload_bytes=2**20) as client:
        with gate.hold(client, "/reconstruct", content=chunked(digit), headers=PNG_TYPE):
            assert metric(client.get("/metrics").text, "digits_body_bytes_in_flight") == 2**20
            problem_of(client.post("/generate", json={}), 503, "overloaded")
            assert client.get("/models").status_code == 200, "it has no body"
        with gate.hold(client, "/generate", content=chunked(b"{}"), headers={"Content-Type": "Application/JSON; a=b"}):
            assert metric(client.get("/metrics").text, "digits_body_bytes_in_flight") == 2**14
        with gate.hold(client, "/generate", json={"n": 3}):
            assert metric(client.get("/metrics").text, "digits_body_bytes_in_flight") == len('{"n":3}')
        assert metric(client.get("/metrics").text, "digits_body_bytes_in_flight") == 0


def test_rows_are_bounded_and_admitted_after_the_request_is_valid_and_its_upload_is_decoded(tiny_models, gate, digit):
    with serving(models_dir=tiny_models, max_images=16, max_queued_rows=16) as client:

        def upload(path, content=digit):
            return client.post(path, content=content, headers=PNG_TYPE)

        with gate.hold(client, "/generate", json={"n": 16}):
            assert metric(client.get("/metrics").text, "digits_rows_in_flight") == 16
            problem_of(client.post("/generate", json={}), 503, "overloaded")
            problem_of(client.get("/interpolate"), 503, "overloaded")
            problem_of(client.post("/interpolate", files=[("files", digit)] * 2), 503, "overloaded")
            problem_of(upload("/reconstruct"), 503, "overloaded")
            problem_of(upload("/reconstruct", b"no image"), 422, "invalid_image")
            problem_of(upload("/reconstruct?model=nobody"), 404, "model_not_found")
            problem_of(client.post("/generate", json={"n": 17}), 422, "invalid_request")
        assert upload("/reconstruct").status_code == 200
        assert metric(client.get("/metrics").text, "digits_rows_in_flight") == 0


def test_uploads_that_wait_for_a_decode_thread_are_bounded():
    async def scenario() -> None:
        decoders = Decoders(Settings(decode_workers=1, max_waiting_uploads=1), Scoreboard())
        opened, reached = Event(), Semaphore(0)

        def held() -> str:
            reached.release()
            opened.wait(60)
            return "decoded"

        running, waiting = (decoders.run(held) for _ in range(2))
        await asyncio.to_thread(reached.acquire)
        with pytest.raises(Overloaded):
            decoders.run(held)
        opened.set()
        assert {await running, await waiting, await decoders.run(held)} == {"decoded"}
        decoders.close()

    asyncio.run(scenario())

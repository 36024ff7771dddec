"""POST /generate, streamed."""

import json
import struct
import zipfile
from io import BytesIO
from threading import Semaphore
from time import monotonic

import httpx
import numpy as np
import pytest

from app.api import streaming
from app.inference.model import Model
from tests.api.reading import assert_named, assert_refused_naming, errors, image, measured, npz_of, problem_of, unbase64
from tests.conftest import serving
from tests.contract.process import until

NDJSON, EVENTS, ZIP, IDX = "application/x-ndjson", "text/event-stream", "application/zip", "application/x-idx"
STREAMS = [NDJSON, EVENTS, ZIP, IDX]
N = 150  # more than two pieces


def generate(client, accept, **body):
    return client.post("/generate", json=body, headers={"Accept": accept})


def lines(content):
    return [json.loads(line) for line in content.splitlines()]


def events(content):
    """The type and the fields of each event."""
    blocks = content.decode().removesuffix("\n\n").split("\n\n")
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def files(content):
    with zipfile.ZipFile(BytesIO(content)) as opened:
        assert opened.testzip() is None
        return {name: image(opened.read(name)) for name in opened.namelist()}


def idx(content):
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    assert (zeros, kind) == (0, 8)
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read(answer, received):
    for piece in answer.iter_bytes():
        received += piece


@pytest.fixture(scope="module")
def whole(labelled):
    """What an answer that is no stream holds."""
    return npz_of(generate(labelled, "application/x-npz", model="cgan", n=N, seed=8, first=30))


BODY = {"model": "cgan", "n": N, "seed": 8, "first": 30}


def test_lines_of_json_hold_the_items_of_a_json_answer(labelled):
    answer = generate(labelled, NDJSON, **BODY)
    assert_named(answer, "cgan")
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == (NDJSON, "8")
    assert lines(answer.content) == generate(labelled, "application/json", **BODY).json()["images"]


def test_events_hold_the_items_of_a_json_answer(labelled):
    *images, end = events(generate(labelled, EVENTS, **BODY).content)
    expected = generate(labelled, "application/json", **BODY).json()["images"]
    assert [(each["event"], int(each["id"])) for each in images] == [("image", item["index"]) for item in expected]
    assert [json.loads(each["data"]) for each in images] == expected
    assert (end["event"], json.loads(end["data"])) == ("end", {"n": N})


def test_an_archive_holds_a_png_of_each_image_in_folders_by_class(labelled, whole):
    found = files(generate(labelled, ZIP, **BODY).content)
    names = [f"{label}/{index:06}.png" for label, index in zip(whole["labels"], whole["index"], strict=True)]
    assert list(found) == names
    assert np.array_equal(list(found.values()), whole["images"])


def test_images_without_labels_are_in_no_folder(labelled):
    assert list(files(generate(labelled, ZIP, model="gan", n=2, seed=8).content)) == ["000000.png", "000001.png"]


def test_the_idx_files_are_those_of_mnist(labelled, whole):
    assert np.array_equal(idx(generate(labelled, IDX, **BODY).content), whole["images"])
    answer = generate(labelled, IDX, idx="labels", **BODY)
    assert_named(answer, "cgan")
    assert np.array_equal(idx(answer.content), whole["labels"])


def test_a_file_of_labels_is_made_in_pieces(labelled):
    n = streaming.PIECE_LABELS + 10
    found = idx(generate(labelled, IDX, idx="labels", model="cgan", n=n, seed=8, label="balanced").content)
    assert np.array_equal(found, np.arange(n) % 10)
    drawn = {"model": "cgan", "seed": 8, "idx": "labels"}
    late = idx(generate(labelled, IDX, first=streaming.PIECE_LABELS, n=10, **drawn).content)
    assert np.array_equal(idx(generate(labelled, IDX, n=n, **drawn).content)[-10:], late)


@pytest.mark.parametrize("accept", STREAMS)
def test_a_stream_has_the_same_bytes_again(labelled, accept):
    assert generate(labelled, accept, **BODY).content == generate(labelled, accept, **BODY).content


def test_latents_and_scale_are_those_of_any_answer(labelled, whole):
    body = {"model": "cgan", "latents": whole["latents"][:2].tolist(), "label": "3", "scale": 2}
    items = lines(generate(labelled, NDJSON, **body).content)
    assert items == generate(labelled, "application/json", **body).json()["images"]
    assert unbase64(items[0]["png"]).shape == (56, 56)


def test_a_stream_may_have_more_images_than_an_answer(labelled):
    assert len(lines(generate(labelled, NDJSON, n=1000).content)) == 1000
    problem_of(generate(labelled, "application/json", n=1000), 422, "invalid_request")


def test_the_images_of_a_stream_are_limited(tiny_models):
    with serving(models_dir=tiny_models, max_stream_images=200) as client:
        assert len(lines(generate(client, NDJSON, n=200).content)) == 200
        assert "200" in problem_of(generate(client, NDJSON, n=201), 422, "invalid_request")["detail"]


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_idx_needs_its_media_type(labelled, accept):
    problem_of(generate(labelled, accept, n=2, idx="labels"), 422, "invalid_request")


def test_a_model_without_labels_is_refused_for_a_file_of_labels(labelled):
    assert_refused_naming(generate(labelled, IDX, model="gan", n=2, idx="labels"), "boots")


def test_streams_beyond_their_bound_are_refused_before_they_start_and_others_are_not(tiny_models):
    with (
        serving(models_dir=tiny_models, max_streams=1, max_images=16, max_queued_rows=16) as client,
        client.stream("POST", "/generate", json={"n": 100_000}, headers={"Accept": NDJSON}) as answer,
    ):
        pieces = answer.iter_bytes()
        next(pieces)
        problem_of(generate(client, NDJSON, n=1), 503, "overloaded")
        until(lambda: not measured(client, "rows_in_flight"))  # the reader has stopped, and so the computation does
        assert measured(client, "streams_in_flight") == 1
        assert generate(client, "application/json", n=16).status_code == 200


def test_the_pixels_of_a_piece_are_limited(tiny_models):
    with serving(models_dir=tiny_models, max_answer_pixels=2**16) as client:
        assert generate(client, ZIP, n=1000).status_code == 200
        problem_of(generate(client, ZIP, n=1000, scale=2), 422, "invalid_request")


@pytest.fixture
def failing(monkeypatch):
    """The ninth pass of a network, and all after it, fail."""
    run, passes = Model.run, Semaphore(8)

    def limited(*arguments):
        if not passes.acquire(blocking=False):
            raise RuntimeError("the network failed")
        return run(*arguments)

    def start():
        monkeypatch.setattr(Model, "run", limited)

    return start


@pytest.mark.parametrize("accept", STREAMS)
def test_a_stream_that_fails_has_no_end_and_says_why_where_its_format_can(tiny_models, failing, accept):
    with serving(models_dir=tiny_models, max_batch_rows=32) as client:
        failing()
        received = bytearray()
        with client.stream("POST", "/generate", json={"n": 1000}, headers={"Accept": accept}) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                read(answer, received)
    if accept == NDJSON:
        *items, problem = lines(received)
        assert [item["index"] for item in items] == list(range(len(items)))
        assert problem["code"] == "internal_error"
    if accept == EVENTS:
        *images, problem = events(received)
        assert {each["event"] for each in images} == {"image"}
        assert (problem["event"], json.loads(problem["data"])["code"]) == ("problem", "internal_error")


def test_the_first_piece_fails_as_any_answer(tiny_models, failing):
    with serving(models_dir=tiny_models) as client:
        failing()
        for _ in range(9):
            generate(client, "application/json")
        problem_of(generate(client, ZIP, n=1000), 500, "internal_error")


def test_a_caller_that_leaves_before_the_first_piece_is_counted_as_gone(tiny_models, gate):
    with serving(models_dir=tiny_models) as client:
        with gate.hold(client, "/generate", json={"n": 1}):
            with pytest.raises(httpx.ReadTimeout):
                client.post("/generate", json={"n": 1000}, headers={"Accept": NDJSON}, timeout=0.2)
            until(lambda: errors(client, "caller_gone"))
        assert (errors(client, "caller_gone"), errors(client, "internal_error")) == (1, 0)


def test_a_reader_that_stops_and_leaves_ends_the_computation(tiny_models):
    n = 100_000
    with serving(models_dir=tiny_models) as client:
        with client.stream("POST", "/generate", json={"n": n}, headers={"Accept": NDJSON}) as answer:
            next(answer.iter_bytes())
        until(lambda: not measured(client, "streams_in_flight"))
        assert errors(client, "caller_gone") == 1
        assert 64 <= measured(client, "images_total", model="plain", operation="generate") < n


def test_the_duration_of_a_stream_is_that_to_its_first_piece(tiny_models, monkeypatch):
    monkeypatch.setattr(streaming, "monotonic", lambda: monotonic() + 1000)
    with serving(models_dir=tiny_models) as client:
        generate(client, NDJSON, n=200)
        labels = {"method": "POST", "route": "/generate", "status": "200"}
        assert measured(client, "request_duration_seconds_sum", **labels) > 1000

"""POST /score."""

import base64
import math

import numpy as np
import pytest

from tests.api.reading import (
    NPZ,
    assert_named,
    assert_refused_naming,
    labels_of,
    npz_of,
    png_file,
    problem_of,
)
from tests.conftest import TEST_IMAGES
from tests.corpus.files import built, header


def score(client, headers=None, **body):
    return client.post("/score", json=body, headers=headers)


def score_files(client, contents, **params):
    return client.post("/score", files=[("files", content) for content in contents], params=params)


def logits_of(answer):
    assert answer.status_code == 200, answer.text
    return [item["logit"] for item in answer.json()["scores"]]


def test_uploads_are_scored_in_order_and_independently(client):
    answer = score_files(client, TEST_IMAGES, model="gan")
    assert_named(answer, "gan")
    body = answer.json()
    assert (body["seed"], body["generator"]) == (None, None)
    assert [item["index"] for item in body["scores"]] == list(range(10))
    for content, item in zip(TEST_IMAGES, body["scores"], strict=True):
        assert item["probability"] == pytest.approx(1 / (1 + math.exp(-item["logit"])), rel=1e-5)
        assert score_files(client, [content], model="gan").json()["scores"] == [item | {"index": 0}]


def test_test_images_score_above_noise(client):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    noise = logits_of(score_files(client, map(png_file, pixels), normalize=False))
    assert np.mean(logits_of(score_files(client, TEST_IMAGES))) > np.mean(noise)


@pytest.mark.parametrize("options", [{}, {"label": "3"}, {"label": ["3", "4"]}, {"label": "balanced", "truncation": 1}])
@pytest.mark.parametrize("model", ["cgan", "gan"])
def test_generated_images_score_as_their_pngs_do(labelled, model, options):
    if model == "gan":
        options = {name: value for name, value in options.items() if name != "label"}
    body = {"model": model, "n": 4, "seed": 3, "first": 2, **options}
    answer = score(labelled, **body)
    assert_named(answer, model)
    assert (answer.json()["seed"], answer.json()["generator"], answer.headers["x-seed"]) == (3, model, "3")
    assert not any(item["warnings"] for item in answer.json()["scores"])
    made = labelled.post("/generate", json=body).json()["images"]
    labels = [item["label"] for item in made]
    assert labels_of(answer, "scores") == labels
    params = {"label": ",".join(labels)} if model == "cgan" else {}
    files = [base64.b64decode(item["png"]) for item in made]
    assert logits_of(score_files(labelled, files, model=model, normalize=False, **params)) == logits_of(answer)
    loaded = npz_of(score(labelled, NPZ, **body))
    assert loaded["logits"].dtype == loaded["probabilities"].dtype == np.float32
    assert loaded["logits"].tolist() == logits_of(answer)
    assert loaded["probabilities"].tolist() == [item["probability"] for item in answer.json()["scores"]]
    assert ("labels" in loaded) == (model == "cgan")


def test_uploads_are_scored_as_images_of_their_labels(labelled):
    both, swapped, one = (score_files(labelled, TEST_IMAGES[3:5], label=label) for label in ("3,4", "4,3", "3"))
    assert labels_of(both, "scores") == ["3", "4"]
    assert labels_of(one, "scores") == ["3", "3"]
    assert both.json()["scores"][0] == one.json()["scores"][0]
    assert all(a != b for a, b in zip(logits_of(both), logits_of(swapped), strict=True))


@pytest.mark.parametrize("label", ["3,4,5", "3,", "ten", "balanced,3"])
def test_labels_that_do_not_fit_the_uploads_are_refused(labelled, label):
    problem_of(score_files(labelled, TEST_IMAGES[3:5], model="cgan", label=label), 422, "invalid_request")


@pytest.mark.parametrize("options", [{"generator": "gan"}, {"generator": "fitted", "prior": "normal"}])
def test_a_conditional_model_needs_a_label_for_images_without_one(labelled, options):
    body = {"model": "cgan", "n": 2, "seed": 3, **options}
    problem_of(score(labelled, **body), 422, "invalid_request")
    pair = score(labelled, **body, label=["3", "4"])
    assert labels_of(pair, "scores") == ["3", "4"]
    assert logits_of(score(labelled, **body, label="3"))[0] == logits_of(pair)[0]


@pytest.mark.parametrize("model", ["gan", "referee"])
def test_a_model_without_labels_scores_images_of_a_class(labelled, model):
    answer = score(labelled, model=model, generator="fitted", n=2, label="3")
    assert_named(answer, model)
    assert labels_of(answer, "scores") == ["3", "3"]


@pytest.mark.parametrize(
    ("body", "model", "generator"),
    [
        ({}, "cgan", "cgan"),
        ({"label": "3", "temperature": 0.5}, "cgan", "cvae"),
        ({"prior": "fitted"}, "cgan", "fitted"),
        ({"generator": "boots"}, "gan", "boots"),
        ({"label": "Bag"}, "gan", "boots"),
        ({"model": "gan"}, "gan", "gan"),
        ({"model": "gan", "label": "3"}, "gan", "cgan"),
        ({"model": "referee"}, "referee", "boots"),
    ],
)
def test_without_models_the_first_that_can_do_all_that_is_requested_are_used(labelled, body, model, generator):
    answer = score(labelled, **body)
    assert_named(answer, model)
    assert answer.json()["generator"] == generator


@pytest.mark.parametrize(("params", "model"), [({}, "gan"), ({"label": "3"}, "cgan")])
def test_without_a_model_the_first_that_takes_the_labels_scores_uploads(labelled, digit, params, model):
    assert_named(score_files(labelled, [digit], **params), model)


def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled, digit):
    assert_refused_naming(score(labelled, model="fitted"), "cgan")
    assert_refused_naming(score_files(labelled, [digit], model="fitted"), "gan")
    assert_refused_naming(score_files(labelled, [digit], model="gan", label="3"), "cgan")
    assert_refused_naming(score_files(labelled, [digit], model="cgan"), "gan", "invalid_request")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "cgan", "generator": "boots"}, "invalid_request"),
        ({"model": "cgan", "generator": "cgan", "temperature": 1}, "invalid_request"),
        ({"model": "gan", "generator": "gan", "label": "3"}, "capability_missing"),
        ({"generator": "referee"}, "capability_missing"),
    ],
)
def test_images_that_the_generator_cannot_make_or_the_model_cannot_score_are_refused(labelled, body, code):
    problem_of(score(labelled, **body), 422, code)


def test_the_cost_of_the_files_together_is_limited_before_anything_is_decoded(client):
    large = built(header(1024, 1024), b"")  # its pixels cannot be decoded
    limit = problem_of(score_files(client, [large] * 64), 422, "invalid_image")["detail"]
    assert problem_of(score_files(client, [large] * 4), 422, "invalid_image")["detail"] != limit


def test_for_a_generator_that_cannot_do_what_is_asked_another_one_is_named(labelled):
    answer = labelled.post("/score", json={"model": "gan", "generator": "gan", "temperature": 0.5})
    named = problem_of(answer, 422, "invalid_request")["detail"].rpartition("generator ")[2].split()[0]
    assert labelled.post("/score", json={"model": "gan", "generator": named, "temperature": 0.5}).status_code == 200

"""Walks of models that take labels, and of those whose prior is fitted."""

import numpy as np
import pytest

from app.inference.latents import interpolate, normal_rows, uniform_labels
from tests.api.reading import arrays, pixels_of, problem_of
from tests.conftest import FIXTURES
from tests.labelled import DIGITS, LATENT_DIM

NPZ = {"Accept": "application/x-npz"}
SEEDS = {"from_seed": 1, "to_seed": 2, "steps": 4}
LATENT = normal_rows(1, 0, 1, LATENT_DIM)[0].tolist()
FILES = [("files", (FIXTURES / "mnist" / f"{name}.png").read_bytes()) for name in (1, 7)]


def walk(client, **params):
    return client.get("/interpolate", params={**SEEDS, **params})


def labels_of(answer):
    assert answer.status_code == 200, answer.text
    return [item["label"] for item in answer.json()["images"]]


def first_image(client, **body):
    return pixels_of(client.post("/generate", json=body))[0]


def test_a_conditional_model_keeps_one_label_along_the_path(labelled):
    answer = walk(labelled, model="cgan", label="3")
    assert labels_of(answer) == ["3"] * 4
    images = pixels_of(answer)
    for seed, pixels in ((1, images[0]), (2, images[-1])):
        assert np.array_equal(pixels, first_image(labelled, model="cgan", seed=seed, label="3"))
    assert answer.json()["path"] == "slerp"
    assert answer.json()["prior"] == "normal"


def test_without_a_label_that_of_the_first_seed_holds_along_the_path(labelled):
    drawn = DIGITS[uniform_labels(1, 0, 1, 10)[0]]
    answer = walk(labelled, model="cgan")
    assert labels_of(answer) == [drawn] * 4
    assert np.array_equal(pixels_of(answer)[0], first_image(labelled, model="cgan", seed=1))
    second = DIGITS[uniform_labels(2, 0, 1, 10)[0]]
    half = {"from_latent": LATENT, "to_seed": 2, "steps": 3, "model": "cgan"}
    assert labels_of(labelled.post("/interpolate", json=half)) == [second] * 3


def test_a_conditional_model_with_a_fitted_prior_has_one_label_and_a_straight_line(labelled):
    answer = walk(labelled, model="mixed", label="3")
    assert labels_of(answer) == ["3"] * 4
    assert (answer.json()["path"], answer.json()["prior"]) == ("lerp", "fitted")
    for seed, pixels in ((1, pixels_of(answer)[0]), (2, pixels_of(answer)[-1])):
        assert np.array_equal(pixels, first_image(labelled, model="mixed", seed=seed, label="3"))
    problem_of(walk(labelled, model="mixed", from_label="3"), 422, "invalid_request")


def test_arrays_of_a_conditional_walk_hold_its_label(labelled):
    loaded = arrays(labelled.get("/interpolate", params={**SEEDS, "model": "cgan", "label": "3"}, headers=NPZ).content)
    assert loaded["labels"].tolist() == [3, 3, 3, 3]


def test_the_ends_of_a_fitted_prior_are_images_of_generate_and_a_straight_line_apart(labelled):
    answer = walk(labelled, model="fitted", from_label="3", to_label="8")
    assert labels_of(answer) == ["3", None, None, "8"]
    assert (answer.json()["path"], answer.json()["prior"]) == ("lerp", "fitted")
    images = pixels_of(answer)
    assert np.array_equal(images[0], first_image(labelled, model="fitted", seed=1, label="3"))
    assert np.array_equal(images[-1], first_image(labelled, model="fitted", seed=2, label="8"))
    params = {**SEEDS, "model": "fitted", "from_label": "3", "to_label": "8"}
    loaded = arrays(labelled.get("/interpolate", params=params, headers=NPZ).content)
    assert loaded["labels"].tolist() == [3, -1, -1, 8]
    ends = loaded["latents"][[0, -1]]
    assert np.array_equal(loaded["latents"], interpolate(ends[0], ends[1], 4, "lerp"))


def test_one_label_is_that_of_both_ends_and_without_one_each_seed_draws_its_own(labelled):
    assert labels_of(walk(labelled, model="fitted", label="3")) == ["3", None, None, "3"]
    answer = walk(labelled, model="fitted")
    drawn = [DIGITS[uniform_labels(seed, 0, 1, 10)[0]] for seed in (1, 2)]
    assert labels_of(answer) == [drawn[0], None, None, drawn[1]]
    assert np.array_equal(pixels_of(answer)[-1], first_image(labelled, model="fitted", seed=2))


def test_the_normal_prior_of_the_same_model_has_no_labels_and_an_arc(labelled):
    answer = walk(labelled, model="fitted", prior="normal")
    assert labels_of(answer) == [None] * 4
    assert (answer.json()["path"], answer.json()["prior"]) == ("slerp", "normal")
    assert np.array_equal(pixels_of(answer)[0], first_image(labelled, model="fitted", seed=1, prior="normal"))
    assert walk(labelled, model="fitted", path="slerp").json()["path"] == "slerp"


def test_a_latent_and_a_seed_of_a_fitted_prior_are_ends_of_one_path(labelled):
    body = {"model": "fitted", "from_latent": LATENT, "to_seed": 2, "to_label": "8", "steps": 3}
    answer = labelled.post("/interpolate", json=body)
    assert labels_of(answer) == [None, None, "8"]
    assert np.array_equal(pixels_of(answer)[0], first_image(labelled, model="fitted", latents=[LATENT]))
    latents = {"model": "fitted", "from_latent": LATENT, "to_latent": LATENT}
    between = labelled.post("/interpolate", json=latents).json()
    assert (between["prior"], between["path"]) == (None, "lerp")


def test_controls_hold_for_ends_that_are_seeds(labelled):
    plain, cut = pixels_of(walk(labelled, model="cgan")), pixels_of(walk(labelled, model="cgan", truncation="0.5"))
    assert not np.array_equal(plain[0], cut[0])
    assert np.array_equal(cut[0], first_image(labelled, model="cgan", seed=1, truncation=0.5))
    body = {**SEEDS, "model": "cgan", "truncation": 0.5}
    assert labelled.post("/interpolate", json=body).json() == walk(labelled, model="cgan", truncation="5e-1").json()


def test_other_labels_priors_and_controls_have_other_etags(labelled):
    variants: list[dict[str, str]] = [
        {"model": "fitted"},
        {"model": "fitted", "path": "slerp"},
        {"model": "fitted", "label": "3"},
        {"model": "fitted", "from_label": "3", "to_label": "8"},
        {"model": "fitted", "prior": "normal"},
        {"model": "fitted", "temperature": "0.5"},
        {"model": "cgan", "label": "3"},
        {"model": "cgan", "label": "4"},
        {"model": "cgan", "label": "3", "truncation": "1"},
    ]
    answers = [walk(labelled, **params) for params in variants]
    assert len({answer.headers["etag"] for answer in answers}) == len(variants)
    etag = answers[3].headers["etag"]
    again = labelled.get("/interpolate", params={**SEEDS, **variants[3]}, headers={"If-None-Match": etag})
    assert again.status_code == 304


def test_uploads_to_a_conditional_model_need_their_label(labelled):
    answer = labelled.post("/interpolate", params={"model": "cvae", "label": "7", "steps": 3}, files=FILES)
    assert labels_of(answer) == ["7"] * 3
    params = {"model": "cvae", "label": "7"}
    npz = labelled.post("/reconstruct", params=params, files={"file": FILES[0][1]}, headers=NPZ).content
    assert np.array_equal(pixels_of(answer)[0], arrays(npz)["reconstruction"])
    refusal = problem_of(
        labelled.post("/interpolate", params={"model": "cvae"}, files=FILES), 422, "capability_missing"
    )
    assert refusal["detail"] == "model cvae cannot encode and generate without a label; fitted can"
    unlabelled = labelled.post("/interpolate", params={"steps": 3}, files=FILES)
    assert unlabelled.json()["model"] == "fitted"
    assert labels_of(unlabelled) == [None] * 3


@pytest.mark.parametrize(
    "params",
    [
        {"model": "cgan", "from_label": "3"},
        {"model": "cgan", "label": "3", "to_label": "3"},
        {"model": "cgan", "label": "ten"},
        {"model": "cgan", "label": "balanced"},
        {"model": "cgan", "label": "3,4"},
        {"model": "cgan", "prior": "fitted"},
        {"model": "cgan", "temperature": "1"},
        {"model": "cgan", "truncation": "1e"},
        {"model": "cgan", "truncation": "nan"},
        {"model": "cgan", "truncation": "inf"},
        {"model": "cgan", "truncation": "0"},
        {"model": "fitted", "prior": "normal", "label": "3"},
        {"model": "fitted", "prior": "normal", "to_label": "3"},
    ],
)
def test_a_bad_choice_is_refused(labelled, params):
    problem_of(walk(labelled, **params), 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "cgan"},
        {"model": "cgan", "label": "3", "prior": "normal"},
        {"model": "cgan", "label": "3", "truncation": 1},
        {"model": "fitted", "label": "3"},
        {"model": "fitted", "from_label": "3"},
        {"model": "fitted", "prior": "fitted"},
    ],
)
def test_latents_have_no_more_of_a_label_or_a_prior_than_the_model_needs(labelled, body):
    ends = {"from_latent": LATENT, "to_latent": LATENT, "steps": 3}
    problem_of(labelled.post("/interpolate", json=ends | body), 422, "invalid_request")
    assert labels_of(labelled.post("/interpolate", json=ends | {"model": "cgan", "label": "3"})) == ["3"] * 3


def test_a_model_without_labels_is_refused_by_name(labelled):
    refusal = problem_of(walk(labelled, model="gan", label="3"), 422, "capability_missing")
    assert refusal["detail"] == "model gan cannot generate by label; boots can"
    assert walk(labelled, label="3").json()["model"] == "cgan"

"""POST /generate."""

import numpy as np
import pytest

from app.inference.latents import MAX_SEED, normal_rows, uniform_labels
from tests.api.reading import (
    NPZ,
    PNG,
    assert_named,
    assert_refused_naming,
    image,
    labels_of,
    npz_of,
    pixels_of,
    problem_of,
)
from tests.conftest import serving
from tests.tiny_models import DIGITS, GARMENTS, LATENT_DIM

LABELLED = ["cgan", "cvae", "fitted", "mixed"]
LATENT = [0.0] * LATENT_DIM


def generate(client, headers=None, **body):
    return client.post("/generate", json=body, headers=headers)


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_an_answer_names_its_origin_and_holds_the_images_in_order(client, model):
    answer = generate(client, model=model, n=3, seed=7)
    assert_named(answer, model)
    body = answer.json()
    assert (body["model"], body["seed"], answer.headers["x-seed"]) == (model, 7, "7")
    assert (body["digest"], body["runtime"]) == (answer.headers["x-model-digest"], answer.headers["x-runtime"])
    assert [item["index"] for item in body["images"]] == [0, 1, 2]
    for pixels in pixels_of(answer):
        assert pixels.shape == (28, 28)
        assert pixels.max() > 128, "bright ink"
        assert pixels.mean() < 100, "dark ground"


def test_a_grid_shows_the_same_pixels_row_by_row(client):
    single = pixels_of(generate(client, n=5, seed=1))
    answer = generate(client, PNG, n=5, seed=1)
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("image/png", "1")
    blank = np.zeros((28, 28), np.uint8)
    assert np.array_equal(image(answer.content), np.block([single[:3], [*single[3:], blank]]))
    assert np.array_equal(image(generate(client, PNG, seed=1).content), single[0])


def test_the_arrays_agree_with_the_json(client):
    body = {"model": "cgan", "n": 4, "seed": 9, "first": 10}
    answer = generate(client, NPZ, **body)
    assert_named(answer, "cgan")
    loaded, same = npz_of(answer), generate(client, **body)
    assert loaded["images"].dtype == np.uint8
    assert loaded["labels"].dtype == np.int64
    assert np.array_equal(loaded["latents"], normal_rows(9, 10, 4, 100))
    assert loaded["index"].tolist() == [10, 11, 12, 13]
    assert np.array_equal(loaded["images"], pixels_of(same))
    assert [DIGITS[label] for label in loaded["labels"]] == labels_of(same)


@pytest.mark.parametrize("headers", [{}, PNG, NPZ])
def test_the_same_request_has_the_same_bytes(client, headers):
    assert generate(client, headers, n=6, seed=3).content == generate(client, headers, n=6, seed=3).content


def test_latents_give_the_images_of_the_seed_they_were_drawn_from(client):
    answer = generate(client, model="vae", latents=normal_rows(7, 0, 2, 16).tolist())
    assert (answer.json()["seed"], answer.json()["prior"]) == (None, None)
    assert "x-seed" not in answer.headers
    seeded = generate(client, model="vae", n=2, seed=7, prior="normal")
    assert answer.json()["images"] == seeded.json()["images"]


@pytest.mark.parametrize(("model", "label"), [("gan", None), ("cvae", ["3", "8"]), ("fitted", None), ("mixed", ["3"])])
def test_returned_latents_are_those_of_the_arrays_and_give_the_same_pixels_again(labelled, model, label):
    body = {"model": model, "n": 3, "seed": 5, "first": 2, "label": label}
    answer = generate(labelled, return_latents=True, **body)
    latents = [item["latent"] for item in answer.json()["images"]]
    assert np.array_equal(np.array(latents, np.float32), npz_of(generate(labelled, NPZ, **body))["latents"])
    again = generate(labelled, model=model, latents=latents, label=label if model in {"cvae", "mixed"} else None)
    assert [each.tobytes() for each in pixels_of(again)] == [each.tobytes() for each in pixels_of(answer)]


def test_without_the_option_an_answer_has_no_latents_and_is_the_same_otherwise(labelled):
    body = {"model": "fitted", "n": 3, "seed": 5}
    plain, with_latents = generate(labelled, **body).json(), generate(labelled, return_latents=True, **body).json()
    assert generate(labelled, return_latents=False, **body).json() == plain
    latents = [item.pop("latent") for item in with_latents["images"]]
    assert [len(latent) for latent in latents] == [LATENT_DIM] * 3
    assert with_latents == plain


def test_latents_of_the_caller_are_returned_as_they_were_computed(labelled):
    answer = generate(labelled, model="plain", latents=[[0.1] * LATENT_DIM], return_latents=True)
    assert answer.json()["images"][0]["latent"] == [float(np.float32(0.1))] * LATENT_DIM


@pytest.mark.parametrize(
    "media_type",
    [
        "image/png",
        "application/x-npz",
        "application/x-ndjson",
        "text/event-stream",
        "application/zip",
        "application/x-idx",
    ],
)
def test_latents_are_returned_in_json_only(labelled, media_type):
    problem_of(generate(labelled, {"Accept": media_type}, return_latents=True), 422, "invalid_request")


def test_a_model_without_latents_returns_none(labelled):
    answer = generate(labelled, model="double", return_latents=True)
    assert_refused_naming(answer, "boots")


@pytest.mark.parametrize("scale", [2, 16])
def test_scale_repeats_pixels(client, scale):
    (plain,), (large,) = pixels_of(generate(client, seed=2)), pixels_of(generate(client, seed=2, scale=scale))
    assert np.array_equal(large, np.kron(plain, np.ones((scale, scale), np.uint8)))
    assert np.array_equal(image(generate(client, PNG, seed=2, scale=scale).content), large)


def test_images_and_pixels_of_an_answer_are_limited(client):
    assert image(generate(client, PNG, model="vae", n=256).content).shape == (16 * 28, 16 * 28)
    problem_of(generate(client, n=257), 422, "invalid_request")
    assert generate(client, PNG, model="vae", n=80, scale=16).status_code == 200
    problem_of(generate(client, model="vae", n=84, scale=16), 422, "invalid_request")


def test_the_largest_seed_and_index_are_supported(labelled):
    body = generate(labelled, model="cgan", seed=MAX_SEED, first=MAX_SEED, label="balanced").json()
    assert body["seed"] == body["images"][0]["index"] == MAX_SEED
    assert body["images"][0]["label"] == DIGITS[MAX_SEED % 10]


@pytest.mark.parametrize("model", LABELLED)
def test_images_of_one_seed_differ_by_label(labelled, model):
    answers = [generate(labelled, model=model, seed=1, label=name) for name in DIGITS]
    assert [labels_of(answer) for answer in answers] == [[name] for name in DIGITS]
    assert len({pixels_of(answer)[0].tobytes() for answer in answers}) == 10


@pytest.mark.parametrize("model", LABELLED)
@pytest.mark.parametrize(("label", "expected"), [(["8", 3], ["8", "3"] * 6 + ["8"]), ("balanced", [*DIGITS, *"012"])])
def test_labels_are_taken_in_turn_by_index(labelled, model, label, expected):
    whole = generate(labelled, model=model, n=13, seed=1, label=label)
    assert labels_of(whole) == expected
    for first, n in ((1, 1), (4, 3), (9, 4)):
        part = generate(labelled, model=model, n=n, first=first, seed=1, label=label)
        assert part.json()["images"] == whole.json()["images"][first : first + n]


@pytest.mark.parametrize("model", LABELLED)
def test_without_a_label_one_is_drawn_from_seed_and_index(labelled, model):
    whole = generate(labelled, model=model, n=40, seed=7)
    labels = labels_of(whole)
    assert labels == [DIGITS[label] for label in uniform_labels(7, 0, 40, 10)]
    assert generate(labelled, model=model, n=5, first=30, seed=7).json()["images"] == whole.json()["images"][30:35]
    assert generate(labelled, model=model, n=40, seed=7, label=labels).json()["images"] == whole.json()["images"]


def test_a_label_is_a_class_name_and_never_an_index(labelled):
    assert labels_of(generate(labelled, model="boots", label="T-shirt/top")) == ["T-shirt/top"]
    loaded = npz_of(generate(labelled, NPZ, model="boots", n=2, label=["Bag", "Ankle boot"]))
    assert [GARMENTS[label] for label in loaded["labels"]] == ["Bag", "Ankle boot"]
    for body in ({"model": "boots", "label": 1}, {"label": "tree"}):
        detail = problem_of(generate(labelled, **body), 422, "invalid_request")["detail"]
        assert all(name in detail for name in GARMENTS), "the classes of a model are listed"


def test_images_of_a_model_without_labels_have_none(labelled):
    assert labels_of(generate(labelled, model="gan", n=2)) == [None, None]
    assert "labels" not in npz_of(generate(labelled, NPZ, model="gan"))


@pytest.mark.parametrize(
    ("model", "controls"),
    [
        ("cgan", {"truncation": 1.5}),
        ("cvae", {"temperature": 0.5}),
        ("boots", {"temperature": 0.5, "truncation": 1.5}),
    ],
)
def test_controls_shrink_the_noise_of_the_same_seed(labelled, model, controls):
    body = {"model": model, "n": 8, "seed": 5, "label": "balanced"}
    plain, controlled = npz_of(generate(labelled, NPZ, **body)), npz_of(generate(labelled, NPZ, **body, **controls))
    assert np.array_equal(plain["latents"], normal_rows(5, 0, 8, LATENT_DIM))
    assert np.array_equal(controlled["latents"], normal_rows(5, 0, 8, LATENT_DIM, **controls))
    assert not np.array_equal(controlled["images"], plain["images"])


def test_a_fitted_prior_is_the_default_and_the_normal_one_can_be_requested(labelled):
    body = {"model": "fitted", "n": 8, "seed": 5}
    fitted, normal = (npz_of(generate(labelled, NPZ, **body, **more)) for more in ({}, {"prior": "normal"}))
    assert np.array_equal(normal["latents"], normal_rows(5, 0, 8, LATENT_DIM))
    assert "labels" not in normal
    assert not np.array_equal(fitted["latents"], normal["latents"])
    assert generate(labelled, **body).json()["prior"] == "fitted"
    given = generate(labelled, model="fitted", latents=fitted["latents"].tolist())
    assert np.array_equal(pixels_of(given), fitted["images"])
    assert labels_of(given) == [None] * 8


def test_a_conditional_model_with_a_fitted_prior_generates_latents_of_a_class_as_that_class(labelled):
    body = {"model": "mixed", "n": 4, "seed": 5, "label": ["3", "8"]}
    fitted, normal = (npz_of(generate(labelled, NPZ, **body, **more)) for more in ({}, {"prior": "normal"}))
    assert fitted["labels"].tolist() == normal["labels"].tolist() == [3, 8, 3, 8]
    assert not np.array_equal(fitted["latents"], normal["latents"])
    given = generate(labelled, model="mixed", latents=fitted["latents"].tolist(), label=["3", "8"])
    assert np.array_equal(pixels_of(given), fitted["images"])


def test_latents_take_labels_in_turn(labelled):
    latents = normal_rows(7, 0, 3, LATENT_DIM).tolist()
    given = generate(labelled, model="cvae", latents=latents, label=["4", "5"])
    assert labels_of(given) == ["4", "5", "4"]
    seeded = generate(labelled, model="cvae", n=3, seed=7, label=["4", "5"])
    assert given.json()["images"] == seeded.json()["images"]


@pytest.mark.parametrize(
    "body",
    [
        {"label": ["3", "ten"]},
        {"label": "3,4"},
        {"prior": "fitted"},
        {"temperature": 1},
        {"truncation": 11},
        {"temperature": 2.1, "model": "cvae"},
        {"truncation": 1, "model": "cvae"},
        {"prior": "normal", "label": "3", "model": "fitted"},
        {"latents": [LATENT]},
        {"latents": [LATENT], "label": "3", "prior": "normal"},
        {"latents": [LATENT], "label": "3", "truncation": 1},
        {"latents": [[0.0] * (LATENT_DIM + 1)], "label": "3"},
        {"latents": [LATENT, LATENT[1:]], "label": "3"},
        {"latents": [[1e4] * LATENT_DIM], "label": "3"},
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(labelled, body):
    problem_of(generate(labelled, **{"model": "cgan", **body}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({}, "boots"),
        ({"label": "balanced"}, "boots"),
        ({"temperature": 0.5}, "boots"),
        ({"label": ["3", "4"]}, "cgan"),
        ({"label": "3", "truncation": 1}, "cgan"),
        ({"label": "3", "prior": "normal"}, "cgan"),
        ({"label": "3", "temperature": 0.5}, "cvae"),
        ({"prior": "fitted"}, "fitted"),
        ({"label": "3", "prior": "fitted", "temperature": 0.5}, "fitted"),
        ({"latents": [LATENT]}, "fitted"),
        ({"latents": [LATENT], "label": "3"}, "cgan"),
        ({"latents": [[0.0] * 100]}, "gan"),
    ],
)
def test_without_a_model_the_first_that_can_do_all_that_is_requested_generates(labelled, body, model):
    assert_named(generate(labelled, **body), model)


@pytest.mark.parametrize(
    ("body", "other", "code"),
    [
        ({"model": "referee"}, "boots", "capability_missing"),
        ({"model": "gan", "label": "3"}, "cgan", "capability_missing"),
        ({"model": "gan", "prior": "fitted"}, "fitted", "invalid_request"),
        ({"model": "cvae", "label": "3", "truncation": 1}, "cgan", "invalid_request"),
        ({"model": "boots", "label": "3"}, "cgan", "invalid_request"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled, body, other, code):
    assert_refused_naming(generate(labelled, **body), other, code)


def test_the_default_model_is_used_where_it_can_do_what_is_requested():
    with serving(models="cgan,vae", default_model="vae") as client:
        assert_named(generate(client), "vae")
        assert_named(generate(client, truncation=1), "cgan")
        assert_named(client.post("/score", json={}), "cgan")

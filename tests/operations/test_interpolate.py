"""GET and POST /interpolate."""

import numpy as np
import pytest

from app.inference.interpolation import interpolate
from app.inference.latents import normal_rows, uniform_labels
from tests.api.reading import (
    APNG,
    NPZ,
    PNG,
    assert_named,
    assert_refused_naming,
    frames,
    image,
    labels_of,
    npz_of,
    pixels_of,
    problem_of,
)
from tests.conftest import FIXTURES
from tests.tiny_models import DIGITS, LATENT_DIM

SEEDS = {"from_seed": 1, "to_seed": 2, "steps": 5}
LATENT = normal_rows(1, 0, 1, LATENT_DIM)[0].tolist()
FILES = [("files", (FIXTURES / "mnist" / f"{name}.png").read_bytes()) for name in (1, 7)]


def query(client, headers=None, **params):
    return client.get("/interpolate", params=SEEDS | params, headers=headers)


def uploads(client, headers=None, **params):
    return client.post("/interpolate", files=FILES, params={"steps": 3} | params, headers=headers)


def post(client, **body):
    return client.post("/interpolate", json={"steps": 3} | body)


def first_image(client, **body):
    return pixels_of(client.post("/generate", json=body))[0]


@pytest.mark.parametrize("model", ["vae", "gan"])
@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_the_ends_are_image_0_of_generate(client, model, path):
    answer = query(client, model=model, path=path)
    assert_named(answer, model)
    body = answer.json()
    assert (body["seed"], body["from_seed"], body["to_seed"], body["path"]) == (1, 1, 2, path)
    assert [answer.headers[name] for name in ("x-seed", "x-from-seed", "x-to-seed")] == ["1", "1", "2"]
    assert [item["index"] for item in body["images"]] == [0, 1, 2, 3, 4]
    images = pixels_of(answer)
    assert np.array_equal(images[0], first_image(client, model=model, seed=1))
    assert np.array_equal(images[-1], first_image(client, model=model, seed=2))
    assert len({pixels.tobytes() for pixels in images}) == 5


def test_strip_animation_and_arrays_show_the_same_pixels(client):
    images = pixels_of(query(client, model="cgan", scale=2))
    strip = query(client, PNG, model="cgan", scale=2)
    assert strip.headers["content-type"] == "image/png"
    assert np.array_equal(image(strip.content), np.hstack(images))
    animation = query(client, APNG, model="cgan", scale=2)
    assert animation.headers["content-type"] == "image/apng"
    assert np.array_equal(frames(animation.content), images)
    answer = query(client, NPZ, model="cgan", prior="normal")
    loaded = npz_of(answer)
    assert np.array_equal(loaded["images"], pixels_of(query(client, model="cgan", prior="normal")))
    assert np.array_equal(loaded["latents"][-1], normal_rows(2, 0, 1, 100)[0])
    assert (answer.headers["x-from-seed"], answer.headers["x-to-seed"]) == ("1", "2")


def test_a_current_copy_is_not_sent_again(client):
    first = query(client)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    names = [name for name in first.headers if name.startswith("x-") and name != "x-request-id"]
    assert len(names) == 7
    for header in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = query(client, {"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
        assert all(again.headers[name] == first.headers[name] for name in ("etag", *names))
    assert query(client, {"If-None-Match": '"other"'}).content == first.content


def test_every_parameter_and_media_type_has_its_own_etag(labelled):
    variants: list[dict[str, object]] = [
        {},
        {"to_seed": 3},
        {"steps": 6},
        {"path": "slerp"},
        {"scale": 2},
        {"label": "3"},
        {"from_label": "3", "to_label": "8"},
        {"prior": "normal"},
        {"temperature": "0.5"},
        {"model": "cgan", "label": "3"},
        {"model": "cgan", "label": "4"},
        {"model": "cgan", "label": "3", "truncation": "1"},
    ]
    answers = [query(labelled, **{"model": "fitted", **params}) for params in variants]
    answers += [query(labelled, headers, model="fitted") for headers in (PNG, APNG, NPZ)]
    assert len({answer.headers["etag"] for answer in answers}) == len(answers)


def test_seeds_drawn_by_the_server_are_named_and_have_no_etag(client):
    answer = client.get("/interpolate", params={"steps": 3})
    assert "etag" not in answer.headers
    seeds = {name: answer.json()[name] for name in ("from_seed", "to_seed")}
    assert query(client, **seeds, steps=3).json() == answer.json()


def test_the_ends_can_be_latents(client):
    seeded = query(client, model="vae", prior="normal").json()
    latents = [normal_rows(seed, 0, 1, 16)[0].tolist() for seed in (1, 2)]
    ends = {f"{side}_latent": ",".join(map(str, latent)) for side, latent in zip(("from", "to"), latents, strict=True)}
    answer = client.get("/interpolate", params={"model": "vae", "steps": 5, "path": "slerp", **ends})
    assert (answer.json()["seed"], "etag" in answer.headers) == (None, True)
    assert answer.json()["images"] == seeded["images"]
    mixed = post(client, model="vae", from_latent=latents[0], to_seed=2, steps=5, prior="normal")
    assert (mixed.json()["from_seed"], mixed.json()["to_seed"]) == (None, 2)
    assert mixed.json()["images"] == seeded["images"]


def test_query_and_body_have_the_same_answer(labelled):
    options = {"model": "cgan", "truncation": 0.5, "label": "3", "path": "lerp", "scale": 2}
    assert post(labelled, **SEEDS, **options).content == query(labelled, **options).content
    body = post(labelled, **SEEDS, model="cgan", label=3, truncation=0.5).json()
    assert body == query(labelled, model="cgan", label="3", truncation="5e-1").json()


def test_uploads_are_the_ends(client):
    # Of a model without a contrast, whose images along the path are those of `decode`.
    answer = uploads(client, model="flow-matching")
    assert_named(answer, "flow-matching")
    images = pixels_of(answer)
    for (_, content), end in zip(FILES, (images[0], images[-1]), strict=True):
        reconstruction = npz_of(
            client.post("/reconstruct", params={"model": "flow-matching"}, files={"file": content}, headers=NPZ)
        )["reconstruction"]
        assert np.array_equal(end, reconstruction)
    assert np.array_equal(image(uploads(client, PNG, model="flow-matching").content), np.hstack(images))
    assert np.array_equal(frames(uploads(client, APNG, model="flow-matching").content), images)
    assert np.array_equal(npz_of(uploads(client, NPZ, model="flow-matching"))["images"], images)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_uploads_than_two_is_refused(client, digit, count):
    problem_of(client.post("/interpolate", files=[("files", digit)] * count), 422, "invalid_request")


@pytest.mark.parametrize("label", ["balanced", "ten", "", "7,7"])
def test_uploads_have_one_class_of_the_model(labelled, label):
    problem_of(uploads(labelled, model="cvae", label=label), 422, "invalid_request")


def test_uploads_to_a_conditional_model_are_encoded_and_decoded_with_their_label(labelled):
    answer = uploads(labelled, model="cvae", label="7")
    assert labels_of(answer) == ["7"] * 3
    params = {"model": "cvae", "label": "7"}
    npz = npz_of(labelled.post("/reconstruct", params=params, files={"file": FILES[0][1]}, headers=NPZ))
    assert np.array_equal(pixels_of(answer)[0], npz["reconstruction"])


@pytest.mark.parametrize("model", ["plain", "small"])
def test_uploads_to_a_deterministic_encoder_are_the_images_of_their_codes(labelled, model):
    answer = uploads(labelled, model=model)
    assert_named(answer, model)
    assert labels_of(answer) == [None] * 3
    loaded = npz_of(uploads(labelled, NPZ, model=model))
    assert loaded["images"].shape == (3, 28, 28)
    generated = labelled.post("/generate", json={"model": model, "latents": loaded["latents"].tolist()})
    assert generated.json()["images"] == answer.json()["images"]


FIRST, LAST = (DIGITS[uniform_labels(seed, 0, 1, 10)[0]] for seed in (1, 2))  # drawn from the seeds of the ends


@pytest.mark.parametrize(
    ("params", "labels", "path", "prior"),
    [
        ({"model": "cgan", "label": "3"}, ["3"] * 5, "slerp", "normal"),
        ({"model": "cgan"}, [FIRST] * 5, "slerp", "normal"),
        ({"model": "cgan", "truncation": "0.5"}, [FIRST] * 5, "slerp", "normal"),
        ({"model": "mixed", "label": "3"}, ["3"] * 5, "lerp", "fitted"),
        ({"model": "fitted"}, [FIRST, None, None, None, LAST], "lerp", "fitted"),
        ({"model": "fitted", "label": "3", "temperature": "0.5"}, ["3", None, None, None, "3"], "lerp", "fitted"),
        ({"model": "fitted", "from_label": "3", "to_label": "8"}, ["3", None, None, None, "8"], "lerp", "fitted"),
        ({"model": "fitted", "to_label": "8", "path": "slerp"}, [FIRST, None, None, None, "8"], "slerp", "fitted"),
        ({"model": "fitted", "prior": "normal"}, [None] * 5, "slerp", "normal"),
    ],
)
def test_a_conditional_model_has_one_label_along_the_path_and_a_fitted_prior_one_at_each_end(
    labelled, params, labels, path, prior
):
    answer, loaded = query(labelled, **params), npz_of(query(labelled, NPZ, **params))
    assert labels_of(answer) == labels
    assert (answer.json()["path"], answer.json()["prior"]) == (path, prior)
    if any(labels):
        assert [DIGITS[label] if label >= 0 else None for label in loaded["labels"].tolist()] == labels
    latents = loaded["latents"]
    assert np.array_equal(latents, interpolate(latents[0], latents[-1], 5, path))
    images = pixels_of(answer)
    options = {name: float(value) for name, value in params.items() if name in {"temperature", "truncation"}}
    for seed, label, end in ((1, labels[0], images[0]), (2, labels[-1], images[-1])):
        body = {"model": params["model"], "prior": prior, "seed": seed, "label": label, **options}
        assert np.array_equal(end, first_image(labelled, **body))


def test_a_latent_and_a_seed_can_be_the_ends_of_one_path(labelled):
    assert labels_of(post(labelled, model="cgan", from_latent=LATENT, to_seed=2)) == [LAST] * 3
    answer = post(labelled, model="fitted", from_latent=LATENT, to_seed=2, to_label="8")
    assert labels_of(answer) == [None, None, "8"]
    assert np.array_equal(pixels_of(answer)[0], first_image(labelled, model="fitted", latents=[LATENT]))
    between = post(labelled, model="fitted", from_latent=LATENT, to_latent=LATENT).json()
    assert (between["prior"], between["path"]) == (None, "lerp")


@pytest.mark.parametrize(
    "params",
    [
        {"from_label": "3"},
        {"label": "3", "to_label": "3"},
        {"label": "balanced"},
        {"label": "3,4"},
        {"prior": "fitted"},
        {"temperature": "1"},
        {"from_label": "3", "model": "mixed"},
        {"model": "fitted", "prior": "normal", "label": "3"},
        {"model": "fitted", "prior": "normal", "to_label": "3"},
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(labelled, params):
    problem_of(query(labelled, **{"model": "cgan", **params}), 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "cgan"},
        {"model": "cgan", "label": "3", "prior": "normal"},
        {"model": "cgan", "label": "3", "truncation": 1},
        {"model": "cgan", "label": "3", "from_seed": 1},
        {"model": "fitted", "label": "3"},
        {"model": "fitted", "from_label": "3"},
        {"model": "fitted", "prior": "fitted"},
        {"model": "fitted", "to_latent": LATENT[1:]},
    ],
)
def test_options_that_do_not_fit_latents_are_refused(labelled, body):
    ends = {"from_latent": LATENT, "to_latent": LATENT}
    problem_of(post(labelled, **ends | body), 422, "invalid_request")
    assert labels_of(post(labelled, **ends, model="cgan", label="3")) == ["3"] * 3


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({}, "boots"),
        ({"temperature": 0.5, "truncation": 1}, "boots"),
        ({"label": "3"}, "cgan"),
        ({"from_label": "3", "to_label": "8"}, "fitted"),
        ({"to_label": "8", "temperature": 0.5}, "fitted"),
        ({"prior": "fitted"}, "fitted"),
        ({"label": "3", "prior": "fitted"}, "fitted"),
        ({"from_latent": LATENT}, "boots"),
        ({"from_latent": LATENT, "to_label": "8"}, "fitted"),
        ({"from_latent": LATENT, "to_latent": LATENT}, "fitted"),
        ({"from_latent": LATENT, "to_latent": LATENT, "label": "3"}, "cgan"),
        ({"from_latent": [0.0] * 100}, "gan"),
    ],
)
def test_without_a_model_the_first_that_can_do_all_that_is_requested_is_used(labelled, body, model):
    assert_named(post(labelled, **body), model)


@pytest.mark.parametrize(("params", "model"), [({}, "fitted"), ({"label": "7"}, "cvae"), ({"label": "Bag"}, "boots")])
def test_without_a_model_the_first_that_takes_the_label_interpolates_uploads(labelled, params, model):
    assert_named(uploads(labelled, **params), model)


def test_a_model_whose_images_do_not_change_gradually_is_refused_naming_one_whose_images_do(labelled):
    assert_refused_naming(query(labelled, model="sketch"), "boots")
    assert_refused_naming(post(labelled, model="sketch", label="3"), "cgan")


def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled):
    assert_refused_naming(query(labelled, model="gan", label="3"), "cgan")
    assert_refused_naming(query(labelled, model="gan", from_label="3"), "fitted")
    assert_refused_naming(query(labelled, model="cgan", from_label="3"), "fitted", "invalid_request")
    assert_refused_naming(uploads(labelled, model="gan"), "fitted")
    assert_refused_naming(uploads(labelled, model="cvae"), "fitted", "invalid_request")
    assert_refused_naming(uploads(labelled, model="plain", label="7"), "cvae")

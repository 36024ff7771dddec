"""POST /upscale."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from app.images.encode import from_uint8, to_uint8
from tests.api.reading import (
    NPZ,
    PNG,
    Pixels,
    assert_named,
    assert_refused_naming,
    image,
    labels_of,
    npz_of,
    pixels_of,
    png_file,
    problem_of,
)
from tests.conftest import TEST_IMAGES

RANDOM = np.random.default_rng(0)
SMALL: dict[int, Pixels] = {side: RANDOM.integers(0, 256, (side, side), dtype=np.uint8) for side in (7, 14)}


def reduced(pixels, factor):
    side = len(pixels) // factor
    means = pixels.reshape(side, factor, side, factor).mean(axis=(1, 3))
    return np.floor(means + 0.5).astype(np.uint8)


SEVEN = reduced(image(TEST_IMAGES[7]), 2)


def upscale_files(client, contents, headers=None, **params):
    return client.post("/upscale", files=[("files", content) for content in contents], params=params, headers=headers)


def upscale(client, headers=None, params=None, **body):
    return client.post("/upscale", json=body, params=params, headers=headers)


def interpolated(pixels, factor):
    """What the tiny models do."""
    images = torch.from_numpy(from_uint8(pixels[None, None]))
    return to_uint8(torch.nn.functional.interpolate(images, scale_factor=factor, mode="bilinear").numpy()[0, 0])


@pytest.mark.parametrize(("factor", "side", "model"), [(2, 14, "double"), (4, 7, "quadruple")])
def test_a_small_grey_png_is_upscaled_as_it_is(labelled, factor, side, model):
    answer = upscale_files(labelled, [png_file(SMALL[side])], factor=factor)
    assert_named(answer, model)
    body = answer.json()
    assert [body[name] for name in ("seed", "prior", "generator", "factor")] == [None, None, None, factor]
    (pixels,) = pixels_of(answer)
    assert np.array_equal(pixels, interpolated(SMALL[side], factor))
    loaded = npz_of(upscale_files(labelled, [png_file(SMALL[side])], NPZ, factor=factor))
    assert set(loaded) == {"images", "inputs", "index"}
    assert np.array_equal(loaded["images"][0], pixels)
    assert np.array_equal(loaded["inputs"][0], SMALL[side])


@pytest.mark.parametrize("factor", [2, 4])
def test_images_of_the_form_of_the_training_images_are_reduced_by_the_factor_as_in_training(labelled, factor):
    answer = upscale_files(labelled, TEST_IMAGES, NPZ, factor=factor)
    loaded = npz_of(answer)
    assert loaded["index"].tolist() == list(range(10))
    for content, small, large in zip(TEST_IMAGES, loaded["inputs"], loaded["images"], strict=True):
        assert np.array_equal(small, reduced(image(content), factor))
        assert np.array_equal(large, interpolated(small, factor))
    for index, content in enumerate(TEST_IMAGES):
        assert np.array_equal(
            npz_of(upscale_files(labelled, [content], NPZ, factor=factor))["images"][0], loaded["images"][index]
        )


def test_a_small_grey_png_of_fewer_bits_is_upscaled_as_it_is(labelled):
    content = png_file(Image.fromarray(SMALL[14]).convert("1"))
    (seen,) = npz_of(upscale_files(labelled, [content], NPZ, factor=2))["inputs"]
    with Image.open(BytesIO(content)) as opened:
        assert np.array_equal(seen, 255 * np.asarray(opened, np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        *(Image.fromarray(SEVEN).convert(mode) for mode in ("RGB", "LA", "P")),
        Image.fromarray(SEVEN).resize((15, 15)),
        Image.fromarray(255 - SEVEN).resize((200, 200)),
    ],
    ids=["colour", "alpha", "palette", "another size", "a drawing"],
)
def test_any_other_picture_is_normalized_to_the_form_of_the_training_images_and_reduced(labelled, picture):
    (seen,) = npz_of(upscale_files(labelled, [png_file(picture)], NPZ, factor=2))["inputs"]
    assert not np.array_equal(seen, SEVEN)
    assert np.corrcoef(seen.ravel(), SEVEN.ravel())[0, 1] > 0.8


def test_a_picture_shows_the_input_bicubic_interpolation_and_the_answer_a_row_an_image(labelled):
    files = [png_file(SMALL[7]), TEST_IMAGES[3]]
    answer = upscale_files(labelled, files, PNG, factor=4, scale=2)
    assert answer.headers["content-type"] == "image/png"
    loaded = npz_of(upscale_files(labelled, files, NPZ, factor=4))
    rows = []
    for small, large in zip(loaded["inputs"], loaded["images"], strict=True):
        bicubic = np.asarray(Image.fromarray(small).resize((28, 28), Image.Resampling.BICUBIC))
        rows.append(np.hstack([np.kron(small, np.ones((4, 4), np.uint8)), bicubic, large]))
    assert np.array_equal(image(answer.content), np.kron(np.vstack(rows), np.ones((2, 2), np.uint8)))


@pytest.mark.parametrize("options", [{}, {"label": "3"}, {"label": "balanced"}])
def test_generated_images_are_upscaled_as_their_pngs_are(labelled, options):
    body = {"n": 4, "seed": 3, "first": 2, **options}
    answer = upscale(labelled, **body)
    assert_named(answer, "quadruple")
    shown = answer.json()
    assert [shown[name] for name in ("seed", "prior", "generator", "factor")] == [3, "normal", "sketch", 4]
    assert answer.headers["x-seed"] == "3"
    assert not any(item["warnings"] for item in shown["images"])
    made = labelled.post("/generate", json={"model": "sketch", **body})
    assert [item["index"] for item in shown["images"]] == [2, 3, 4, 5]
    assert labels_of(answer) == labels_of(made)
    files = [base64.b64decode(item["png"]) for item in made.json()["images"]]
    assert np.array_equal(pixels_of(upscale_files(labelled, files, factor=4)), pixels_of(answer))
    loaded = npz_of(upscale(labelled, NPZ, **body))
    assert np.array_equal(loaded["images"], pixels_of(answer))
    assert np.array_equal(loaded["inputs"], pixels_of(made))
    assert [str(label) for label in loaded["labels"]] == labels_of(answer)
    pictures = image(upscale(labelled, PNG, **body).content)
    assert np.array_equal(pictures, image(upscale_files(labelled, files, PNG, factor=4).content))


def test_the_factor_may_stand_beside_a_json_body_or_in_it(labelled):
    assert upscale(labelled, params={"factor": 4}, seed=1).content == upscale(labelled, factor=4, seed=1).content
    problem_of(upscale(labelled, params={"factor": 4}, factor=4), 422, "invalid_request")
    problem_of(upscale(labelled, params={"scale": 4}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("params", "model"), [({}, "double"), ({"factor": 4}, "quadruple"), ({"model": "double"}, "double")]
)
def test_without_a_model_the_first_of_the_factor_upscales(labelled, digit, params, model):
    assert_named(upscale_files(labelled, [digit], **params), model)


@pytest.mark.parametrize("factor", ["1", "3", "8", "2.0", "two", "", "-2"])
def test_another_factor_is_refused(labelled, digit, factor):
    problem_of(upscale_files(labelled, [digit], factor=factor), 422, "invalid_request")


def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled, digit):
    assert_refused_naming(upscale_files(labelled, [digit], model="gan"), "double")
    assert_refused_naming(upscale_files(labelled, [digit], model="double", factor=4), "quadruple")
    assert_refused_naming(upscale(labelled, model="double", factor=4), "quadruple")
    assert_refused_naming(upscale(labelled, model="quadruple", generator="cgan"), "sketch")
    assert_refused_naming(upscale(labelled, model="quadruple", generator="reader"), "sketch")


@pytest.mark.parametrize("options", [{"label": "ten"}, {"temperature": 1}, {"prior": "fitted"}])
def test_options_that_no_generator_has_are_refused_with_those_of_one_that_makes_small_images(labelled, options):
    assert_refused_naming(upscale(labelled, **options), "sketch", "invalid_request")


def test_small_images_that_no_generator_makes_are_refused(labelled):
    problem_of(upscale(labelled, factor=2), 422, "capability_missing")


def test_images_and_pixels_of_an_answer_are_limited(labelled, digit):
    assert len(pixels_of(upscale_files(labelled, [digit] * 64, factor=4))) == 64
    problem_of(upscale_files(labelled, [digit] * 65, factor=4), 422, "invalid_request")
    problem_of(upscale(labelled, n=257), 422, "invalid_request")
    assert upscale(labelled, n=28, scale=16).status_code == upscale(labelled, PNG, n=27, scale=16).status_code == 200
    problem_of(upscale(labelled, PNG, n=28, scale=16), 422, "invalid_request")

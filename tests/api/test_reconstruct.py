"""POST /reconstruct in each form."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from app.api import uploads
from tests.api.reading import arrays, assert_named, image, problem_of, unbase64
from tests.conftest import FIXTURES

DIGITS = sorted((FIXTURES / "mnist").glob("*.png"))


def ask(client, content, accept="application/json", **params):
    return client.post("/reconstruct", files={"file": content}, params=params, headers={"Accept": accept})


@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_a_real_digit_is_seen_unchanged_and_comes_back_alike(client, path):
    content = path.read_bytes()
    answer = ask(client, content)
    assert_named(answer, "vae")
    body = answer.json()
    assert np.array_equal(unbase64(body["input"]["png"]), image(content))
    assert body["errors"]["mse"] < 0.05
    assert 0 < body["errors"]["kl"] < 60
    assert 20 < body["errors"]["bce"] < 200
    assert len(body["latent"]["mean"]) == len(body["latent"]["log_variance"]) == 16
    assert body["seed"] is None


def test_the_errors_are_those_of_the_two_images_and_the_posterior(client, digit):
    body = ask(client, digit).json()
    x = unbase64(body["input"]["png"]) / 255
    y = unbase64(body["reconstruction"]["png"]) / 255
    assert body["errors"]["mse"] == pytest.approx(np.mean((x - y) ** 2), abs=1e-4)
    mean, log_variance = np.array(body["latent"]["mean"]), np.array(body["latent"]["log_variance"])
    kl = 0.5 * np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance)
    assert body["errors"]["kl"] == pytest.approx(kl, rel=1e-5)


def test_png_is_input_and_reconstruction_side_by_side(client, digit):
    pair = image(ask(client, digit, "image/png", scale=2).content)
    body = ask(client, digit, scale=2).json()
    assert pair.shape == (56, 112)
    assert np.array_equal(pair[:, :56], unbase64(body["input"]["png"]))
    assert np.array_equal(pair[:, 56:], unbase64(body["reconstruction"]["png"]))


def test_npz_holds_both_images_and_the_posterior(client, digit):
    answer = ask(client, digit, "application/x-npz")
    assert_named(answer, "vae")
    loaded = arrays(answer.content)
    assert {name: (array.shape, array.dtype.name) for name, array in loaded.items()} == {
        "input": ((28, 28), "uint8"),
        "reconstruction": ((28, 28), "uint8"),
        "mean": ((16,), "float32"),
        "log_variance": ((16,), "float32"),
    }


def test_the_mean_is_decoded_unless_a_seed_asks_for_a_sample(client, digit):
    mean = ask(client, digit).json()
    assert ask(client, digit).json() == mean
    sample = ask(client, digit, seed=1).json()
    assert sample["seed"] == 1
    assert sample["latent"] == mean["latent"]
    assert sample["reconstruction"] != mean["reconstruction"]
    assert ask(client, digit, seed=1).json() == sample
    assert ask(client, digit, seed=2).json()["reconstruction"] != sample["reconstruction"]


def test_a_dark_drawing_on_light_ground_is_read_as_the_digit_it_shows(client, digit):
    large = Image.open(io.BytesIO(digit)).resize((280, 280), Image.Resampling.BICUBIC)
    drawing = Image.fromarray(255 - np.asarray(large))
    buffer = io.BytesIO()
    drawing.save(buffer, "JPEG", quality=90)
    body = ask(client, buffer.getvalue()).json()
    seen, original = unbase64(body["input"]["png"]).astype(float), image(digit).astype(float)
    assert np.corrcoef(seen.ravel(), original.ravel())[0, 1] > 0.9


def test_normalization_can_be_turned_off(client, digit):
    inverted = Image.fromarray(255 - image(digit))
    buffer = io.BytesIO()
    inverted.save(buffer, "PNG")
    seen = unbase64(ask(client, buffer.getvalue(), normalize=False).json()["input"]["png"])
    assert np.array_equal(seen, np.asarray(inverted))


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(50)],
)
def test_a_file_that_is_no_image_is_refused(client, content):
    problem_of(ask(client, content), 422, "invalid_image")


def test_a_truncated_png_is_refused(client, digit):
    problem_of(ask(client, digit[:-20]), 422, "invalid_image")


def test_an_image_over_the_side_limit_is_refused(client):
    buffer = io.BytesIO()
    Image.new("L", (1025, 10)).save(buffer, "PNG")
    problem_of(ask(client, buffer.getvalue()), 422, "invalid_image")


def test_a_blank_image_is_refused(client):
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 255).save(buffer, "PNG")
    problem_of(ask(client, buffer.getvalue()), 422, "invalid_image")


def test_an_upload_over_the_byte_limit_is_refused(client):
    problem_of(ask(client, bytes(2**20 + 1)), 413, "body_too_large")


@pytest.mark.parametrize(
    "files",
    [
        {"other": b"x"},
        [("file", b"x"), ("file", b"y")],
        [("file", b"x"), ("other", b"y")],
        {},
    ],
)
def test_a_form_of_another_shape_is_refused(client, files):
    if files:
        answer = client.post("/reconstruct", files=files)
    else:
        answer = client.post(
            "/reconstruct", content=b"--b--\r\n", headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
    body = problem_of(answer, 422, "invalid_request")
    assert "'file'" in body["detail"]


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_multipart_body_without_a_boundary_is_refused(client, content_type):
    answer = client.post("/reconstruct", content=b"x" * 100, headers={"Content-Type": content_type})
    problem_of(answer, 422, "invalid_request")


def test_a_text_field_beside_the_file_is_refused(client, digit):
    answer = client.post("/reconstruct", files={"file": digit}, data={"model": "vae"})
    problem_of(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "params", [{"seed": -1}, {"normalize": "perhaps"}, {"normalize": "yes"}, {"scale": 99}, {"unknown": 1}]
)
def test_a_bad_parameter_is_refused(client, digit, params):
    problem_of(ask(client, digit, **params), 422, "invalid_request")


def test_a_model_that_cannot_encode_is_refused_naming_one_that_can(client, digit):
    body = problem_of(ask(client, digit, model="gan"), 422, "capability_missing")
    assert body["detail"] == "model gan cannot decode and encode; vae can"


def test_an_unknown_model_is_not_found(client, digit):
    problem_of(ask(client, digit, model="nobody"), 404, "model_not_found")


def test_every_number_of_the_answer_is_finite(client, digit):
    body = ask(client, digit).json()
    numbers = [*body["errors"].values(), *body["latent"]["mean"], *body["latent"]["log_variance"]]
    assert all(math.isfinite(number) for number in numbers)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("negative", [True, False])
def test_where_a_small_upload_is_decoded_changes_nothing(client, digit, monkeypatch, normalize, negative):
    buffer = io.BytesIO()
    Image.fromarray(255 - image(digit) if negative else image(digit)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < uploads.TINY_BYTES
    here = ask(client, buffer.getvalue(), normalize=normalize, seed=1)
    assert here.status_code == 200
    monkeypatch.setattr(uploads, "TINY_BYTES", 0)
    assert ask(client, buffer.getvalue(), normalize=normalize, seed=1).content == here.content

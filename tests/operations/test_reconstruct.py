"""POST /reconstruct."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy, mse_loss

from app.images.encode import to_uint8
from app.inference.latents import POSTERIOR_STREAM, normal_rows
from app.inference.model import load_model
from app.inference.runtime import Runtime
from app.operations.reconstruct import kl_divergence, pixel_errors
from tests.api.reading import (
    NPZ,
    PNG,
    assert_named,
    assert_refused_naming,
    image,
    npz_of,
    problem_of,
    unbase64,
)
from tests.conftest import FIXTURES, ROOT
from tests.tiny_models import LATENT_DIM


def reconstruct(client, content, headers=None, **params):
    return client.post("/reconstruct", files={"file": content}, params=params, headers=headers)


@pytest.mark.parametrize("name", range(10))
def test_a_test_image_reaches_the_model_unchanged_and_is_reconstructed(client, name):
    content = (FIXTURES / "mnist" / f"{name}.png").read_bytes()
    answer = reconstruct(client, content, model="vae")
    assert_named(answer, "vae")
    body = answer.json()
    assert np.array_equal(unbase64(body["input"]["png"]), image(content))
    assert body["errors"]["mse"] < 0.05
    assert (body["seed"], body["label"]) == (None, None)


def test_the_errors_are_those_of_the_two_images_and_of_the_posterior(client, digit):
    body = reconstruct(client, digit, model="vae").json()
    x, y = (unbase64(body[name]["png"]) / 255 for name in ("input", "reconstruction"))
    mean, log_variance = np.array(body["latent"]["mean"]), np.array(body["latent"]["log_variance"])
    assert mean.shape == log_variance.shape == (16,)
    assert body["errors"]["mse"] == pytest.approx(np.mean((x - y) ** 2), abs=1e-4)
    assert body["errors"]["bce"] > body["errors"]["mse"] * 784
    kl = 0.5 * np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance)
    assert body["errors"]["kl"] == pytest.approx(kl, rel=1e-5)


def test_the_errors_agree_with_pytorch():
    x, noise = (np.stack([normal_rows(seed, 0, 784, 1).reshape(1, 28, 28) for seed in range(k, k + 4)]) for k in (1, 5))
    x, y = np.clip(x, 0, 1), np.clip(x + np.float32(0.1) * noise, 0, 1)
    mean, log_variance = normal_rows(9, 0, 4, 16), normal_rows(10, 0, 4, 16)
    (bce, mse), kl = pixel_errors(x, y), kl_divergence(mean, log_variance)
    for row in range(4):
        original, decoded, m, v = (torch.from_numpy(each[row]).double() for each in (x, y, mean, log_variance))
        posterior, prior = torch.distributions.Normal(m, (0.5 * v).exp()), torch.distributions.Normal(0.0, 1.0)
        assert bce[row] == pytest.approx(float(binary_cross_entropy(decoded, original, reduction="sum")), rel=1e-12)
        assert mse[row] == pytest.approx(float(mse_loss(decoded, original)), rel=1e-12)
        assert kl[row] == pytest.approx(float(torch.distributions.kl_divergence(posterior, prior).sum()), rel=1e-9)


def test_png_and_arrays_show_the_same_pixels(client, digit):
    body = reconstruct(client, digit, model="vae", scale=2).json()
    pair = np.hstack([unbase64(body[name]["png"]) for name in ("input", "reconstruction")])
    assert np.array_equal(image(reconstruct(client, digit, PNG, model="vae", scale=2).content), pair)
    answer = reconstruct(client, digit, NPZ, model="vae")
    assert_named(answer, "vae")
    loaded = npz_of(answer)
    assert np.array_equal(np.hstack([loaded["input"], loaded["reconstruction"]]), pair[::2, ::2])
    for name in ("mean", "log_variance"):
        assert loaded[name].dtype == np.float32
        assert loaded[name].tolist() == body["latent"][name]


def test_the_mean_is_decoded_unless_a_seed_requests_a_sample(client, digit):
    vae = load_model(ROOT / "models" / "vae" / "manifest.json", Runtime("cpu"), 8)

    def decode(latent):
        (images,) = vae.run("decode", latent[None])
        return to_uint8(images)[0, 0]

    plain, answer = (
        npz_of(reconstruct(client, digit, NPZ, model="vae")),
        reconstruct(client, digit, NPZ, model="vae", seed=1),
    )
    sample = npz_of(answer)
    assert answer.headers["x-seed"] == str(reconstruct(client, digit, seed=1).json()["seed"]) == "1"
    assert np.array_equal(sample["mean"], plain["mean"])
    assert np.array_equal(plain["reconstruction"], decode(plain["mean"]))
    noise = normal_rows(1, 0, 1, 16, stream=POSTERIOR_STREAM)[0]
    latent = plain["mean"] + np.exp(0.5 * plain["log_variance"]) * noise
    assert np.array_equal(sample["reconstruction"], decode(latent))
    assert not np.array_equal(sample["reconstruction"], plain["reconstruction"])


def test_a_conditional_model_reconstructs_an_image_as_one_of_its_label(labelled, digit):
    seven, eight = (reconstruct(labelled, digit, model="cvae", label=label).json() for label in ("7", "8"))
    assert (seven["label"], eight["label"]) == ("7", "8")
    assert seven["latent"] != eight["latent"]


@pytest.mark.parametrize("model", ["cvae", "boots"])
@pytest.mark.parametrize("label", ["balanced", "ten", "", "7,7"])
def test_an_upload_has_one_class_of_the_model(labelled, digit, model, label):
    problem_of(reconstruct(labelled, digit, model=model, label=label), 422, "invalid_request")


def test_a_deterministic_encoder_gives_a_code_without_variance_and_divergence(labelled, digit):
    body = reconstruct(labelled, digit, model="plain").json()
    assert len(body["latent"]["mean"]) == LATENT_DIM
    assert body["latent"]["log_variance"] is None
    assert body["errors"]["kl"] is None
    assert body["errors"]["mse"] > 0
    loaded = npz_of(reconstruct(labelled, digit, NPZ, model="plain"))
    assert set(loaded) == {"input", "reconstruction", "mean"}
    latents = {"model": "plain", "latents": [body["latent"]["mean"]]}
    assert labelled.post("/generate", json=latents).json()["images"][0]["png"] == body["reconstruction"]["png"]


def test_a_model_whose_input_and_output_differ_in_size_is_refused(labelled, digit):
    assert_refused_naming(reconstruct(labelled, digit, model="small"), "fitted")


@pytest.mark.parametrize(
    ("params", "model"),
    [({}, "fitted"), ({"seed": 1}, "fitted"), ({"label": "Bag"}, "boots"), ({"label": "7"}, "cvae")],
)
def test_without_a_model_the_first_that_can_do_all_that_is_requested_reconstructs(labelled, digit, params, model):
    assert_named(reconstruct(labelled, digit, **params), model)


@pytest.mark.parametrize(
    ("params", "other", "code"),
    [
        ({"model": "gan"}, "fitted", "capability_missing"),
        ({"model": "cvae"}, "fitted", "invalid_request"),
        ({"model": "fitted", "label": "7"}, "cvae", "capability_missing"),
        ({"model": "boots", "label": "7"}, "cvae", "invalid_request"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled, digit, params, other, code):
    assert_refused_naming(reconstruct(labelled, digit, **params), other, code)

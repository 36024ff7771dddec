"""Reconstructions in one pass: what they are, and that they are the same in every company."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from app.checkpoints.store import Model, load_models
from app.inference.latents import normal_rows
from app.inference.runtime import Labelled, Rows, Runtime
from app.inference.stages import Uploads, reconstruction_errors, stages
from tests.conftest import FIXTURES, ROOT


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models(ROOT / "models", Runtime("cpu"), 8)


@pytest.fixture(scope="module")
def digits() -> Rows:
    """Real ones, `(n, 1, 28, 28)` in [0, 1]."""
    files = sorted((FIXTURES / "mnist").glob("*.png"))
    return np.stack([np.asarray(Image.open(file), dtype=np.float32)[None] / np.float32(255) for file in files])


def test_the_errors_are_those_of_pytorch(digits):
    decoded = np.clip(digits + np.float32(0.1) * normal_rows(1, 0, digits.size, 1).reshape(digits.shape), 0, 1)
    mean, log_variance = normal_rows(2, 0, len(digits), 16), normal_rows(3, 0, len(digits), 16)
    found = reconstruction_errors(digits, decoded, mean, log_variance)
    assert found.shape == (len(digits), 3)
    for row, errors in enumerate(found):
        x, y = (torch.from_numpy(images[row]).double() for images in (digits, decoded))
        m, v = (torch.from_numpy(values[row]).double() for values in (mean, log_variance))
        bce = functional.binary_cross_entropy(y, x, reduction="sum")
        kl = -0.5 * (1 + v - m**2 - v.exp()).sum()
        expected = [float(bce), float(functional.mse_loss(y, x)), float(kl)]
        assert errors.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "sampled"), [("vae", False), ("vae", True), ("cvae", False), ("cvae", True)])
def test_a_reconstruction_is_the_same_alone_and_among_others(models, digits, name, sampled):
    model = models[name]
    compute = stages(model)["reconstruct"]
    labels = np.arange(len(digits)) % len(model.manifest.classes)
    images = Labelled(digits, labels) if model.manifest.conditional else digits
    uploads = Uploads(images, normal_rows(7, 0, len(digits), model.manifest.latent_dim) if sampled else None)
    (together,) = compute([uploads])
    apart = compute([uploads[row : row + 1] for row in range(len(digits))])
    alone = [compute([uploads[row : row + 1]])[0] for row in range(len(digits))]
    for others in (apart, alone):
        for output, parts in zip(together, zip(*others, strict=True), strict=True):
            assert np.array_equal(output, np.concatenate(parts))
    assert together[0].shape == digits.shape


def test_of_a_posterior_its_mean_is_decoded_unless_there_is_noise(models, digits):
    model = models["vae"]
    compute = stages(model)["reconstruct"]
    ((decoded, mean, log_variance, _),) = compute([Uploads(digits)])
    ((expected,),) = model.networks["decode"].compute([mean])
    assert np.array_equal(decoded, expected)
    noise = normal_rows(7, 0, len(digits), model.manifest.latent_dim)
    ((sampled, *posterior, _),) = compute([Uploads(digits, noise)])
    ((expected,),) = model.networks["decode"].compute([mean + np.exp(0.5 * log_variance) * noise])
    assert np.array_equal(sampled, expected)
    assert np.array_equal(posterior[0], mean)

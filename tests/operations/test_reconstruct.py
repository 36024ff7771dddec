"""Reconstructions: their errors, and which latent is decoded."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from app.inference.latents import POSTERIOR_STREAM, normal_rows
from app.inference.runtime import Rows
from app.operations.reconstruct import kl_divergence, pixel_errors
from tests.api.reading import arrays
from tests.conftest import FIXTURES


@pytest.fixture(scope="module")
def digits() -> Rows:
    """Real digits, `(n, 1, 28, 28)` in [0, 1]."""
    files = sorted((FIXTURES / "mnist").glob("*.png"))
    return np.stack([np.asarray(Image.open(file), dtype=np.float32)[None] / np.float32(255) for file in files])


def test_errors_are_those_of_pytorch(digits):
    decoded = np.clip(digits + np.float32(0.1) * normal_rows(1, 0, digits.size, 1).reshape(digits.shape), 0, 1)
    mean, log_variance = normal_rows(2, 0, len(digits), 16), normal_rows(3, 0, len(digits), 16)
    bce, mse = pixel_errors(digits, decoded)
    kl = kl_divergence(mean, log_variance)
    for row in range(len(digits)):
        x, y, m, v = (torch.from_numpy(each[row]).double() for each in (digits, decoded, mean, log_variance))
        posterior = torch.distributions.Normal(m, (0.5 * v).exp())
        expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
        assert bce[row] == pytest.approx(float(functional.binary_cross_entropy(y, x, reduction="sum")), rel=1e-12)
        assert mse[row] == pytest.approx(float(functional.mse_loss(y, x)), rel=1e-12)
        assert kl[row] == pytest.approx(float(expected), rel=1e-9)


def test_the_mean_is_decoded_unless_there_is_a_seed(client, digit):
    """The latents are given to `/generate`, which decodes them as they are."""

    def reconstruct(**query: int) -> dict[str, np.ndarray]:
        headers = {"Accept": "application/x-npz", "Content-Type": "image/png"}
        answer = client.post("/reconstruct", params={"model": "vae", **query}, content=digit, headers=headers)
        assert answer.status_code == 200, answer.text
        return arrays(answer.content)

    def decode(latent: Rows) -> np.ndarray:
        body = {"model": "vae", "latents": [latent.tolist()]}
        answer = client.post("/generate", json=body, headers={"Accept": "application/x-npz"})
        return arrays(answer.content)["images"].reshape(28, 28)

    plain, sampled = reconstruct(), reconstruct(seed=7)
    mean, log_variance = plain["mean"], plain["log_variance"]
    assert np.array_equal(sampled["mean"], mean)
    assert np.array_equal(plain["reconstruction"], decode(mean))
    noise = normal_rows(7, 0, 1, len(mean), stream=POSTERIOR_STREAM)[0]
    assert np.array_equal(sampled["reconstruction"], decode(mean + np.exp(0.5 * log_variance) * noise))

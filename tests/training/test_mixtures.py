"""Mixtures fitted to latents, and the network that samples them."""

import math

import pytest
import torch
from torch import Tensor

from training.families.mixtures import Mixtures, fit_mixtures, fit_to_codes


def clusters(centres: list[list[float]], rows: int, spread: float = 0.1) -> Tensor:
    """`rows` latents around each centre."""
    source = torch.Generator().manual_seed(0)
    return torch.cat([torch.tensor(centre) + spread * torch.randn(rows, 2, generator=source) for centre in centres])


@pytest.fixture(scope="module")
def fitted() -> Mixtures:
    """Class 0 has two clusters of weights 3 and 1; class 1 has one, with a full covariance."""
    source = torch.Generator().manual_seed(1)
    stretched = torch.randn(400, 2, generator=source) @ torch.tensor([[2.0, 0.0], [1.5, 0.5]]).T
    latents = torch.cat([clusters([[5, 0]], 300), clusters([[-5, 0]], 100), stretched])
    labels = torch.tensor([0] * 400 + [1] * 400)
    return fit_mixtures(latents, labels, classes=2, components=2, seed=0)


def draws(mixtures: Mixtures, label: int, rows: int = 20_000) -> Tensor:
    noise = torch.randn(rows, 3, generator=torch.Generator().manual_seed(2))
    drawn: Tensor = mixtures(noise, torch.full((rows,), label))
    return drawn


def test_components_are_drawn_with_their_frequencies(fitted):
    latents = draws(fitted, 0)
    right = latents[:, 0] > 0
    assert float(right.double().mean()) == pytest.approx(0.75, abs=0.02)
    assert latents[right].mean(dim=0).tolist() == pytest.approx([5, 0], abs=0.05)
    assert latents[~right].mean(dim=0).tolist() == pytest.approx([-5, 0], abs=0.05)


def test_draws_have_the_covariance_of_the_rows(fitted):
    expected = torch.tensor([[4.0, 3.0], [3.0, 2.5]])
    assert torch.allclose(torch.cov(draws(fitted, 1).T), expected, atol=0.5)


def test_a_class_with_few_rows_gets_fewer_components():
    latents = torch.cat([clusters([[0, 0]], 9), clusters([[50, 50]], 200)])
    labels = torch.tensor([0] * 9 + [1] * 200)
    few = fit_mixtures(latents, labels, classes=2, components=4, seed=0)
    assert draws(few, 0).abs().max() < 5
    assert few.thresholds[0].tolist() == [math.inf] * 3


def test_a_mixture_is_fitted_to_the_codes_of_the_images_of_each_class():
    greys = torch.arange(1200) % 200
    labels = torch.arange(1200) % 2
    images = greys.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    fitted = fit_to_codes(
        lambda rows, own: torch.stack([rows.mean(dim=(1, 2, 3)), own.float()], dim=1),
        (images, labels), classes=2, components=1, seed=0,
    )  # fmt: skip
    for label in range(2):
        mean = (greys[labels == label] / 255).mean().item()
        assert draws(fitted, label).mean(dim=0).tolist() == pytest.approx([mean, label], abs=0.01)

"""ELBO and importance-weighted bound against formulas and numerical integration."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from training.evaluation.elbo import (
    active_units,
    elbo,
    importance_weighted_bound,
)

LATENT = 4
LABELS = torch.zeros(6, dtype=torch.int64)
UNCONDITIONAL = SimpleNamespace(latent_dim=LATENT, noise_dim=LATENT, conditional=False)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def binary_images(count: int = 6) -> Tensor:
    return torch.bernoulli(torch.full((count, 1, 3, 3), 0.5), generator=source(9))


def constant(mean: float, log_variance: float, probability: float) -> SimpleNamespace:
    """One posterior for all images, and one grey value."""

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(images), LATENT)
        return torch.full(shape, mean), torch.full(shape, log_variance)

    return SimpleNamespace(encode=encode, decode=lambda latents: torch.full((len(latents), 1, 3, 3), probability))


def one_number(spread: float) -> SimpleNamespace:
    """One latent dimension that sets the grey of all pixels, with a posterior around 0.3 of width `spread`."""

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(images), 1), 0.3), torch.full((len(images), 1), 2 * math.log(spread))

    def decode(latents: Tensor) -> Tensor:
        return torch.sigmoid(2 * latents)[:, :, None, None].expand(-1, 1, 3, 3)

    return SimpleNamespace(encode=encode, decode=decode)


def integrated(images: Tensor) -> float:
    """Mean of -log p(x) of `one_number`, by the trapezoidal rule."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    grey = torch.sigmoid(2 * grid)
    ink = images.double().sum(dim=(1, 2, 3))[:, None]  # (N, 1)
    joint = ink * grey.log() + (9 - ink) * (1 - grey).log() + Normal(0.0, 1.0).log_prob(grid)
    return float(-torch.trapezoid(joint.exp(), grid, dim=1).log().mean())


def test_the_terms_of_the_elbo_are_those_of_the_formulas():
    images = torch.rand(6, 1, 3, 3, generator=source())
    terms = elbo(constant(0.5, -1.0, 0.25), UNCONDITIONAL, images, LABELS, source())
    error = -(images * math.log(0.25) + (1 - images) * math.log(0.75)).sum() / 6
    divergence = LATENT * float(kl_divergence(Normal(0.5, math.exp(-0.5)), Normal(0.0, 1.0)))
    assert float(terms.reconstruction_error.mean()) == pytest.approx(float(error), rel=1e-5)
    assert terms.kl_divergence.tolist() == pytest.approx([divergence] * 6, rel=1e-5)


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    # The decoder ignores the latent, so that the prior is the posterior.
    bounds = importance_weighted_bound(constant(0, 0, 0.25), UNCONDITIONAL, binary_images(), LABELS, 3, source())
    exact = -Bernoulli(torch.tensor(0.25)).log_prob(binary_images()).flatten(1).sum(dim=1)
    assert bounds.tolist() == pytest.approx(exact.tolist(), rel=1e-5)


def test_the_bound_is_between_the_integrated_likelihood_and_the_elbo():
    images = binary_images()

    def bound(samples: int, seed: int) -> float:
        model = one_number(0.7)
        return float(importance_weighted_bound(model, UNCONDITIONAL, images, LABELS, samples, source(seed)).mean())

    exact = integrated(images)
    terms = [elbo(one_number(0.7), UNCONDITIONAL, images, LABELS, source(seed)) for seed in range(200)]
    negative_elbo = sum(float(term.negative.mean()) for term in terms) / len(terms)
    few = sum(bound(5, seed) for seed in range(40)) / 40
    many = bound(50_000, 0)
    assert many == pytest.approx(exact, abs=0.01)
    assert exact + 0.01 < few < negative_elbo


def test_active_units_are_the_dimensions_whose_mean_varies():
    images = torch.rand(500, 1, 3, 3, generator=source())

    def encode(rows: Tensor) -> tuple[Tensor, Tensor]:
        pixels = rows.flatten(1)[:, :4]
        means = pixels * torch.tensor([3.0, 1.0, 0.1, 0.0])  # variances 0.75, 0.083, 0.0008, 0
        return means, torch.zeros_like(means)

    labels = torch.zeros(500, dtype=torch.int64)
    assert active_units(SimpleNamespace(encode=encode), UNCONDITIONAL, images, labels) == 2

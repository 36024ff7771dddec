"""ELBO and importance-weighted bound where both are known, and against integration."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from training.evaluation.likelihood import (
    Autoencoder,
    active_units,
    binarised,
    cross_entropy,
    elbo,
    importance_weighted_bound,
)

LATENT = 4
LABELS = torch.zeros(6, dtype=torch.int64)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def binary_images(count: int = 6) -> Tensor:
    return torch.bernoulli(torch.full((count, 1, 3, 3), 0.5), generator=source(9))


def constant(mean: float, log_variance: float, probability: float) -> Autoencoder:
    """One posterior for all images, one grey for all latents."""

    def encode(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(images), LATENT)
        return torch.full(shape, mean), torch.full(shape, log_variance)

    return Autoencoder(encode, lambda latents, labels: torch.full((len(latents), 1, 3, 3), probability))


def one_number(spread: float) -> Autoencoder:
    """One latent number that sets the grey of all pixels; a poor posterior, `spread` wide, around 0.3."""

    def encode(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(images), 1), 0.3), torch.full((len(images), 1), 2 * math.log(spread))

    return Autoencoder(encode, lambda latents, labels: torch.sigmoid(2 * latents)[:, :, None, None].expand(-1, 1, 3, 3))


def integrated(images: Tensor) -> float:
    """Mean of -log p(x) of `one_number`, by the trapezoidal rule."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    grey = torch.sigmoid(2 * grid)
    ink = images.double().sum(dim=(1, 2, 3))[:, None]  # (N, 1)
    joint = ink * grey.log() + (9 - ink) * (1 - grey).log() + Normal(0.0, 1.0).log_prob(grid)
    return float(-torch.trapezoid(joint.exp(), grid, dim=1).log().mean())


def test_cross_entropy_is_that_of_bernoulli_pixels_summed():
    probabilities = torch.rand(6, 1, 3, 3, generator=source()).double()
    expected = -Bernoulli(probabilities).log_prob(binary_images().double()).flatten(1).sum(dim=1)
    assert torch.allclose(cross_entropy(probabilities, binary_images()), expected)


def test_a_pixel_that_a_decoder_rules_out_costs_much_but_not_everything():
    impossible = cross_entropy(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert float(impossible) == pytest.approx(-math.log(1e-6))


def test_the_terms_of_the_elbo_are_those_of_the_formulas():
    images = torch.rand(6, 1, 3, 3, generator=source())
    terms = elbo(constant(0.5, -1.0, 0.25), images, LABELS, source())
    error = -(images * math.log(0.25) + (1 - images) * math.log(0.75)).sum() / 6
    divergence = LATENT * float(kl_divergence(Normal(0.5, math.exp(-0.5)), Normal(0.0, 1.0)))
    assert terms.reconstruction_error == pytest.approx(float(error), rel=1e-5)
    assert terms.kl_divergence == pytest.approx(divergence, rel=1e-5)


def test_the_elbo_samples_the_posterior_and_not_only_its_mean():
    sharp, wide = (elbo(one_number(spread), binary_images(), LABELS, source()) for spread in (1e-3, 3.0))
    assert abs(sharp.reconstruction_error - wide.reconstruction_error) > 0.5


def test_labels_reach_both_capabilities():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    seen = []

    def encode(images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(wanted)
        return torch.zeros(len(images), 1), torch.zeros(len(images), 1)

    def decode(latents: Tensor, wanted: Tensor) -> Tensor:
        seen.append(wanted)
        return torch.full((len(latents), 1, 3, 3), 0.5)

    elbo(Autoencoder(encode, decode), binary_images(), labels, source())
    assert all(torch.equal(wanted, labels) for wanted in seen)
    seen.clear()
    importance_weighted_bound(Autoencoder(encode, decode), binary_images(), labels, 5, source())
    assert torch.equal(seen[0], labels)
    assert [(len(wanted), wanted.unique().item()) for wanted in seen[1:]] == [(5, label) for label in labels]


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    # The decoder ignores the latent, so that the prior is the posterior.
    value, error = importance_weighted_bound(constant(0, 0, 0.25), binary_images(), LABELS, 3, source())
    exact = -Bernoulli(torch.tensor(0.25)).log_prob(binary_images()).flatten(1).sum(dim=1)
    assert value == pytest.approx(float(exact.mean()), rel=1e-5)
    assert error == pytest.approx(float(exact.std()) / math.sqrt(6), rel=1e-4)


def test_the_bound_nears_the_integrated_likelihood_from_above_and_the_elbo_is_further():
    images = binary_images()
    exact = integrated(images)
    terms = [elbo(one_number(0.7), images, LABELS, source(seed)) for seed in range(200)]
    negative_elbo = sum(term.reconstruction_error + term.kl_divergence for term in terms) / len(terms)
    few = sum(importance_weighted_bound(one_number(0.7), images, LABELS, 5, source(seed))[0] for seed in range(40)) / 40
    many, _ = importance_weighted_bound(one_number(0.7), images, LABELS, 50_000, source())
    assert many == pytest.approx(exact, abs=0.01)
    assert exact + 0.01 < few < negative_elbo


def test_active_units_are_the_numbers_whose_mean_varies():
    images = torch.rand(500, 1, 3, 3, generator=source())

    def encode(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = rows.flatten(1)[:, :4]
        means = pixels * torch.tensor([3.0, 1.0, 0.1, 0.0])  # variances 0.75, 0.083, 0.0008, 0
        return means, torch.zeros_like(means)

    labels = torch.zeros(500, dtype=torch.int64)
    assert active_units(Autoencoder(encode, lambda latents, _: latents), images, labels) == 2


def test_binarised_pixels_are_ink_as_often_as_they_are_grey():
    grey = torch.full((1, 1, 200, 200), 64, dtype=torch.uint8)
    binary = binarised(grey, source())
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    assert float(binary.mean()) == pytest.approx(64 / 255, abs=0.01)
    assert torch.equal(binarised(grey, source()), binary)
    assert not torch.equal(binarised(grey, source(1)), binary)
    extremes = torch.tensor([0, 255], dtype=torch.uint8).repeat(50).view(1, 1, 10, 10)
    assert torch.equal(binarised(extremes, source()), extremes / 255)

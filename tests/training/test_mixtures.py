"""Mixtures fitted to latents, and the network that draws from them."""

import math

import pytest
import torch
from torch import Tensor

from training.families.mixtures import Mixtures, fit_mixtures


def clusters(centres: list[list[float]], rows: int, spread: float = 0.1) -> Tensor:
    """As many rows round each centre."""
    source = torch.Generator().manual_seed(0)
    return torch.cat([torch.tensor(centre) + spread * torch.randn(rows, 2, generator=source) for centre in centres])


@pytest.fixture(scope="module")
def fitted() -> Mixtures:
    """Class 0 has two clusters, one of them three times as likely; class 1 has one, stretched and turned."""
    source = torch.Generator().manual_seed(1)
    stretched = torch.randn(400, 2, generator=source) @ torch.tensor([[2.0, 0.0], [1.5, 0.5]]).T
    latents = torch.cat([clusters([[5, 0]], 300), clusters([[-5, 0]], 100), stretched])
    labels = torch.tensor([0] * 400 + [1] * 400)
    return fit_mixtures(latents, labels, classes=2, components=2, seed=0)


def draws(mixtures: Mixtures, label: int, rows: int = 20_000) -> Tensor:
    noise = torch.randn(rows, 3, generator=torch.Generator().manual_seed(2))
    drawn: Tensor = mixtures(noise, torch.full((rows,), label))
    return drawn


def test_components_are_drawn_as_often_as_their_rows_were_seen(fitted):
    latents = draws(fitted, 0)
    right = latents[:, 0] > 0
    assert float(right.double().mean()) == pytest.approx(0.75, abs=0.02)
    assert latents[right].mean(dim=0).tolist() == pytest.approx([5, 0], abs=0.05)
    assert latents[~right].mean(dim=0).tolist() == pytest.approx([-5, 0], abs=0.05)


def test_draws_have_the_covariance_of_the_rows(fitted):
    expected = torch.tensor([[4.0, 3.0], [3.0, 2.5]])
    assert torch.allclose(torch.cov(draws(fitted, 1).T), expected, atol=0.5)


def test_half_the_temperature_is_a_quarter_of_the_variance_within_a_component(fitted):
    noise = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(20_000, dtype=torch.long)
    cooled = fitted(noise * torch.tensor([0.5, 0.5, 1.0]), labels)
    warm = fitted(noise, labels)
    side = warm[:, 0] > 0
    assert torch.equal(cooled[:, 0] > 0, side), "the components stay as they were drawn"
    assert torch.allclose(cooled[side].var(dim=0), warm[side].var(dim=0) / 4, rtol=1e-3)


def test_a_row_does_not_depend_on_the_rows_beside_it(fitted):
    noise = torch.randn(33, 3, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(33) % 2
    together = fitted(noise, labels)
    for row in range(33):
        assert torch.equal(fitted(noise[row : row + 1], labels[row : row + 1])[0], together[row])


def test_a_class_of_few_rows_gets_the_components_it_can_fill():
    latents = torch.cat([clusters([[0, 0]], 9), clusters([[50, 50]], 200)])
    labels = torch.tensor([0] * 9 + [1] * 200)
    few = fit_mixtures(latents, labels, classes=2, components=4, seed=0)
    assert draws(few, 0).abs().max() < 5
    assert few.thresholds[0].tolist() == [math.inf] * 3


def test_a_class_without_rows_is_drawn_from_the_standard_normal_distribution():
    rows = 10 + clusters([[0, 0]], 40)
    fitted = fit_mixtures(rows, torch.zeros(40, dtype=torch.long), classes=2, components=2, seed=0)
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(6))
    assert torch.equal(fitted(noise, torch.ones(50, dtype=torch.long)), noise[:, :2])


def test_one_seed_fits_the_same_mixtures(fitted):
    latents, labels = torch.randn(200, 2, generator=torch.Generator().manual_seed(5)), torch.arange(200) % 2
    first, second = (fit_mixtures(latents, labels, classes=2, components=3, seed=7) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))

"""Annealed importance sampling against partition functions that can be summed."""

import itertools

import pytest
import torch

from training.evaluation.annealing import anneal, inverse_temperatures


def test_the_estimate_is_the_partition_function_of_a_small_machine():
    source = torch.Generator().manual_seed(0)
    weight = 1.5 * torch.randn(12, 8, generator=source)
    visible_bias, hidden_bias, base_bias = (torch.randn(units, generator=source) for units in (12, 8, 12))
    hidden = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)))
    # Sums over visible states factorise.
    energies = hidden @ hidden_bias + torch.nn.functional.softplus(visible_bias + hidden @ weight.t()).sum(dim=1)
    exact = float(energies.double().logsumexp(dim=0))
    betas = [i / 300 for i in range(301)]
    value, error = anneal(weight, visible_bias, hidden_bias, base_bias, betas, chains=500, source=source)
    assert 0 < error < 0.1
    assert value == pytest.approx(exact, abs=max(4 * error, 0.1))


def test_the_inverse_temperatures_rise_from_0_to_1():
    betas = inverse_temperatures()
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 14_501)
    assert betas == sorted(betas)
    assert betas[500] == pytest.approx(0.5)
    assert betas[4500] == pytest.approx(0.9)

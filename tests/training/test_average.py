"""The average that ships: what it is after any number of steps."""

import pytest
import torch
from torch import nn

from training.average import Average, warmed_decay


def followed(decay: float, values: list[float]) -> list[float]:
    """The average of a single weight that took these values, after each."""
    weight = nn.Linear(1, 1, bias=False)
    average = Average(weight, decay)
    seen = []
    for value in values:
        nn.init.constant_(weight.weight, value)
        average.update_parameters(weight)
        seen.append(float(next(average.module.parameters()).detach()))
    return seen


def test_the_first_update_copies_and_later_ones_follow_the_formula():
    values = [1.0, 2.0, 4.0, 8.0]
    expected = [1.0]
    for number, value in enumerate(values[1:], start=1):
        share = min(0.3, (1 + number) / (10 + number))
        expected.append(share * expected[-1] + (1 - share) * value)
    assert followed(0.3, values) == pytest.approx(expected)


def test_after_one_epoch_the_first_steps_weights_are_gone():
    # 468 steps with a weight of 1 after the first one's 0: without a warm-up 0.999 ** 467 = 63 % would be left.
    assert followed(0.999, [0.0] + [1.0] * 467)[-1] > 1 - 1e-6


def test_the_decay_rises_to_the_one_asked_for_and_no_further():
    decays = [warmed_decay(0.99, number) for number in range(1, 2000)]
    assert decays[0] == pytest.approx(2 / 11)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_a_decay_of_zero_is_the_last_weights():
    assert followed(0.0, [1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]


def test_buffers_are_copied():
    norm = nn.BatchNorm1d(2)
    average = Average(norm, 0.9)
    average.update_parameters(norm)
    norm(torch.randn(8, 2))
    average.update_parameters(norm)
    followed_norm = average.module
    assert isinstance(followed_norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert followed_norm.running_mean is not None
    assert torch.equal(followed_norm.running_mean, norm.running_mean)

import pytest
from torch import nn

from training.average import Average


def averages(decay: float, values: list[float]) -> list[float]:
    """The average of a single weight after each of its values."""
    weight = nn.Linear(1, 1, bias=False)
    average = Average(weight, decay)
    seen = []
    for value in values:
        nn.init.constant_(weight.weight, value)
        average.update_parameters(weight)
        seen.append(float(next(average.module.parameters()).detach()))
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.3])
def test_the_first_update_copies_and_later_ones_decay_with_a_warm_up(decay):
    values = [1.0, 2.0, 4.0, 8.0]
    expected = [1.0]
    for number, value in enumerate(values[1:], start=1):
        share = min(decay, (1 + number) / (10 + number))
        expected.append(share * expected[-1] + (1 - share) * value)
    assert averages(decay, values) == pytest.approx(expected)

import io
import random

import numpy as np
import pytest
import torch

from training.randomness import random_state, restore_random_state, shielded


def draw() -> tuple[float, float, float]:
    """One number of each generator. Those of Python and NumPy keep the second of each pair for the next call."""
    return random.gauss(0, 1), np.random.standard_normal(), float(torch.randn(()))


def test_a_state_saved_by_torch_restores_every_generator():
    draw()
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    expected = draw(), draw()
    buffer.seek(0)
    restore_random_state(torch.load(buffer, weights_only=True))
    assert (draw(), draw()) == expected


@shielded()
def seed_and_fail() -> None:
    draw()
    torch.manual_seed(3)
    random.seed(3)
    raise KeyError


def test_shielded_code_does_not_change_later_numbers_even_if_it_fails():
    state = random_state()
    expected = draw()
    restore_random_state(state)
    with pytest.raises(KeyError):
        seed_and_fail()
    assert draw() == expected

"""The global random streams: put back where they were."""

import io
import random

import numpy as np
import torch

from training.randomness import random_state, restore_random_state, shielded


def drawn() -> tuple[float, float, float, float]:
    """One number of each stream; the second of numpy's is of the pair that it keeps."""
    return random.gauss(0, 1), np.random.standard_normal(), np.random.standard_normal(), float(torch.randn(()))


def test_every_stream_goes_on_from_where_it_was_kept():
    drawn()
    random.gauss(0, 1)  # half of a pair is left
    state = random_state()
    expected = drawn(), drawn()
    restore_random_state(state)
    assert (drawn(), drawn()) == expected


def test_the_state_is_plain_data_that_loads_without_running_code():
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    expected = drawn()
    buffer.seek(0)
    restore_random_state(torch.load(buffer, weights_only=True))
    assert drawn() == expected


def test_what_is_drawn_under_a_shield_does_not_move_the_streams():
    state = random_state()
    expected = drawn()
    restore_random_state(state)
    with shielded():
        drawn()
        torch.manual_seed(3)
        random.seed(3)
    assert drawn() == expected


def test_a_shield_holds_when_what_it_shields_fails():
    state = random_state()
    expected = drawn()
    restore_random_state(state)
    try:
        with shielded():
            drawn()
            raise KeyError
    except KeyError:
        pass
    assert drawn() == expected

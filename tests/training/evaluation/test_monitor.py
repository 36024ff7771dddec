"""The monitor on real digits: the ten committed ones, moved about."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import FIXTURES
from training.data import mnist_digest
from training.evaluation.extractor import find_extractor
from training.evaluation.monitor import Monitor

LABELS = torch.arange(10).repeat(9)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Each committed digit at nine places: uint8 `(90, 1, 28, 28)`, labelled `LABELS`."""
    pictures = [np.asarray(Image.open(FIXTURES / "mnist" / f"{digit}.png")) for digit in range(10)]
    moved = [np.roll(picture, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1) for picture in pictures]
    return torch.from_numpy(np.stack(moved))[:, None]


@pytest.fixture
def monitor(dataset, digits, tmp_path) -> Monitor:
    extractor = find_extractor(replace(dataset, digest=mnist_digest()), tmp_path)
    assert extractor is not None
    return Monitor(extractor, digits)


def test_the_test_images_themselves_are_perfect(monitor, digits):
    assert monitor.figures(digits, LABELS) == {
        "frechet_distance": pytest.approx(0, abs=1e-4),
        "precision": 1,
        "recall": 1,
        "label_agreement": 1,
    }


def test_noise_is_far_away_and_imprecise(monitor):
    noise = torch.randint(256, (90, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    figures = monitor.figures(noise)
    assert set(figures) == {"frechet_distance", "precision", "recall"}
    assert figures["frechet_distance"] > 50
    assert figures["precision"] == figures["recall"] == 0


def test_labels_of_other_digits_do_not_agree(monitor, digits):
    assert monitor.figures(digits, (LABELS + 1) % 10)["label_agreement"] == 0


def test_it_draws_no_random_number(monitor, digits):
    state = torch.get_rng_state()
    first = monitor.figures(digits.flip(3))
    assert monitor.figures(digits.flip(3)) == first
    assert torch.equal(torch.get_rng_state(), state)

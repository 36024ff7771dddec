"""The monitor on real digits: the ten committed ones, moved about."""

import pytest
import torch

from training.evaluation.monitor import Monitor


@pytest.fixture
def monitor(extractor, digits) -> Monitor:
    return Monitor(extractor, digits.test_images)


def test_the_test_images_themselves_are_perfect(monitor, digits):
    figures = monitor.figures(digits.test_images, digits.test_labels)
    assert tuple(figures) == ("frechet_distance", "precision", "recall", "label_agreement")
    assert figures == {
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
    assert monitor.figures(digits.test_images, (digits.test_labels + 1) % 10)["label_agreement"] == 0


def test_it_draws_no_random_number(monitor, digits):
    state = torch.get_rng_state()
    first = monitor.figures(digits.test_images.flip(3))
    assert monitor.figures(digits.test_images.flip(3)) == first
    assert torch.equal(torch.get_rng_state(), state)

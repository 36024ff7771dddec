"""Figures of features with known answers, and against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from training.evaluation.fidelity import (
    Comparison,
    class_balance,
    density_coverage,
    frechet_distance,
    label_agreement,
    precision_recall,
)


def normal(count: int, seed: int, mean: float = 0.0, deviation: float = 1.0, width: int = 6) -> Tensor:
    return mean + deviation * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def one_hot(classes: list[int]) -> Tensor:
    return torch.eye(10)[classes]


def test_frechet_distance_of_normal_sets_is_that_of_the_formula():
    generated, real = normal(200_000, seed=1, mean=0.5, deviation=2.0), normal(200_000, seed=2)
    assert frechet_distance(generated, real) == pytest.approx(6 * (0.5**2 + (2.0 - 1.0) ** 2), rel=0.01)


def in_balls(points: Tensor, centres: Tensor, neighbours: int) -> list[list[bool]]:
    """The definition, one pair at a time: whether each point is in the ball of each centre."""
    found = []
    for point in points:
        row = []
        for centre in centres:
            radius = sorted(float((centre - other).norm()) for other in centres)[neighbours]
            row.append(float((point - centre).norm()) <= radius)
        found.append(row)
    return found


def test_precision_and_recall_are_those_of_the_definition():
    generated, real = normal(40, seed=1, mean=0.8, width=2), normal(30, seed=2, width=2)
    precision = sum(any(row) for row in in_balls(generated, real, 3)) / 40
    recall = sum(any(row) for row in in_balls(real, generated, 3)) / 30
    assert 0 < precision < 1
    assert 0 < recall < 1
    assert precision_recall(generated, real) == pytest.approx((precision, recall))


def test_density_and_coverage_are_those_of_the_definition():
    generated, real = normal(40, seed=1, mean=0.8, width=2), normal(30, seed=2, width=2)
    held = in_balls(generated, real, 5)
    density = sum(sum(row) for row in held) / (5 * 40)
    coverage = sum(any(row[centre] for row in held) for centre in range(30)) / 30
    assert 0 < coverage < 1
    assert density_coverage(generated, real) == pytest.approx((density, coverage))


def test_class_balance_and_label_agreement_are_those_of_the_definitions():
    assert label_agreement(one_hot([1, 2, 3, 4]), torch.tensor([1, 2, 3, 0])) == 0.75
    assert class_balance(one_hot(list(range(10)) * 3)) == pytest.approx(1)
    assert class_balance(one_hot([4] * 7)) == 0
    assert class_balance(torch.ones(7, 1)) == 1  # of a data set with one class
    assert class_balance(one_hot([1, 2] * 5)) == pytest.approx(math.log(2) / math.log(10))


def test_a_comparison_with_the_same_images_is_perfect_and_with_noise_far_away(extractor, digits):
    comparison = Comparison(extractor, digits.test_images)
    assert comparison.figures(digits.test_images, digits.test_labels) == {
        "frechet_distance": pytest.approx(0, abs=1e-4),
        "precision": 1,
        "recall": 1,
        "label_agreement": 1,
    }
    noise = torch.randint(256, (90, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    figures = comparison.figures(noise)
    assert figures["frechet_distance"] > 50
    assert figures["precision"] == figures["recall"] == 0
    assert "label_agreement" not in figures

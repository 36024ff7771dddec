"""Figures of classifiers against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from training.evaluation import accuracy
from training.evaluation.accuracy import (
    classification_figures,
    expected_calibration_error,
    trained_accuracy,
)


class Verdicts:
    """Gives fixed probabilities, one row after the other."""

    def __init__(self, probabilities: Tensor) -> None:
        self.probabilities, self.done = probabilities, 0

    def classify(self, images: Tensor) -> Tensor:
        self.done += len(images)
        return self.probabilities[self.done - len(images) : self.done]


def verdicts(count: int) -> Tensor:
    return (2 * torch.randn(count, 10, generator=torch.Generator().manual_seed(0))).softmax(dim=1)


def test_the_figures_of_a_classifier_are_those_of_the_definitions(digits, manifest):
    probabilities, labels = verdicts(90), digits.test_labels
    figures = classification_figures(Verdicts(probabilities), manifest, digits)
    right = [int(row.argmax()) == int(label) for row, label in zip(probabilities, labels, strict=True)]
    assert figures["accuracy"].value == pytest.approx(sum(right) / 90)
    assert figures["accuracy"].ceilings == {"chance": 0.1}
    logs = [math.log(row[label]) for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)]
    cross_entropy = figures["negative_log_likelihood_of_labels"]
    assert cross_entropy.value == pytest.approx(-sum(logs) / 90, rel=1e-5)
    assert cross_entropy.ceilings == {"uniform": pytest.approx(math.log(10))}
    error = expected_calibration_error(probabilities, labels)
    assert figures["expected_calibration_error"].value == error


def test_the_calibration_error_is_that_of_the_definition():
    probabilities, labels = verdicts(200), torch.arange(200) % 10
    confidence, found = probabilities.max(dim=1)
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            right = (found == labels)[inside].double().mean()
            expected += float(inside.double().mean() * (confidence[inside].double().mean() - right).abs())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)


def test_a_wrong_verdict_without_doubt_has_a_finite_likelihood(digits, manifest):
    certain = torch.eye(10)[(digits.test_labels + 1) % 10]
    figures = classification_figures(Verdicts(certain), manifest, digits)
    assert figures["accuracy"].value == 0
    assert math.isfinite(figures["negative_log_likelihood_of_labels"].value)
    assert figures["expected_calibration_error"].value == pytest.approx(1)


def test_a_classifier_learns_from_images_with_their_labels_and_not_from_wrong_ones(digits, monkeypatch):
    monkeypatch.setattr(accuracy, "EPOCHS", 40)
    images, labels = digits.train_images, digits.train_labels
    state = torch.get_rng_state()
    assert trained_accuracy(images, labels, digits) > 0.9
    assert trained_accuracy(images, (labels + 1) % 10, digits) < 0.1
    assert torch.equal(torch.get_rng_state(), state)

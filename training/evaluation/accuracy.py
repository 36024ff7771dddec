"""Figures of classifiers: of those in archives, and of one trained on generated images."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.figures import over_images, over_seeds
from training.evaluation.lenet5 import accuracy, train_classifier
from training.evaluation.resizing import area_averages

BATCH = 500
# A probability that float32 rounds to 0 would have an infinite logarithm.
MIN_PROBABILITY = 1e-30
CALIBRATION_BINS = 15
# How the classifiers are trained that measure the images they learn from.
EPOCHS, SEED = 12, 0


@torch.no_grad()
def classification_figures(archive: Any, manifest: Manifest, dataset: Dataset) -> dict[str, Figure]:
    """Accuracy, negative log-likelihood and calibration error of `classify` on the test images."""
    images = area_averages(dataset.test_images, manifest.input_shape)
    probabilities = torch.cat([archive.classify(to_unit_range(batch)) for batch in torch.split(images, BATCH)])
    given = probabilities.double().gather(1, dataset.test_labels[:, None])[:, 0]
    classes = probabilities.shape[1]
    uniform = math.log(classes)
    return {
        "accuracy": over_images(
            probabilities.argmax(dim=1) == dataset.test_labels,
            unit="fraction",
            better="higher",
            ceilings={"chance": 1 / classes},
        ),
        "negative_log_likelihood_of_labels": over_images(
            -given.clamp(min=MIN_PROBABILITY).log(),
            unit="nats a label",
            better="lower",
            floor=0,
            ceilings={"uniform": uniform},
        ),
        "expected_calibration_error": Figure(
            value=expected_calibration_error(probabilities, dataset.test_labels),
            unit=f"probability, {CALIBRATION_BINS} bins",
            better="lower",
            floor=0,
        ),
    }


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The mean distance between confidence and accuracy, over bins of equal width of the confidence.

    Probabilities are `(N, classes)`, labels int64 `(N,)`. Source: C. Guo et al., "On Calibration of Modern Neural
    Networks", 2017, arXiv:1706.04599, equation 3.
    """
    confidence, found = probabilities.double().max(dim=1)
    bins = (confidence * CALIBRATION_BINS).ceil().clamp(1, CALIBRATION_BINS).long() - 1
    excess = confidence - (found == labels).double()
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add(0, bins, excess)
    return float(sums.abs().sum() / len(labels))


def accuracy_score(
    generated: Sequence[Tensor], labels: Tensor, dataset: Dataset, floors: Sequence[float]
) -> dict[str, Figure]:
    """The accuracy on the test images of a classifier trained on the images of each seed.

    `labels`, int64 `(N,)`, are the requested ones; `floors` are the accuracies after training on real images. Source:
    S. Ravuri, O. Vinyals, "Classification Accuracy Score for Conditional Generative Models", 2019, arXiv:1905.10887.
    """
    accuracies = [trained_accuracy(images, labels, dataset) for images in generated]
    ceiling = {"chance": 1 / len(dataset.classes)}
    return {
        "classification_accuracy_score": over_seeds(
            accuracies, floors, unit="fraction", better="higher", ceilings=ceiling
        )
    }


def trained_accuracy(images: Tensor, labels: Tensor, dataset: Dataset) -> float:
    """The accuracy on the test images of a LeNet-5 trained on uint8 images `(N, 1, H, W)` with labels int64 `(N,)`.

    The images are not distorted in training: they have to be diverse by themselves.
    """
    examples = replace(dataset, train_images=images, train_labels=labels)
    network = train_classifier(examples, EPOCHS, SEED, distorted=False)
    return accuracy(network, dataset.test_images, dataset.test_labels)

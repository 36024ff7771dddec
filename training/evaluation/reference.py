"""Floors and ceilings of a data set: the figures of real images, and of noise and other bad ones."""

import logging
from functools import cached_property

import torch
from torch import Tensor
from torchvision.transforms import functional  # type: ignore[import-untyped]

from training.data import Dataset
from training.evaluation.accuracy import trained_accuracy
from training.evaluation.feature_extractor import Classifier, FeatureExtractor
from training.evaluation.fidelity import label_agreement, measure

log = logging.getLogger(__name__)

IMAGES = 10_000
# Disjoint draws of real images, as far as there are enough of them.
FLOOR_DRAWS = 3
# Standard deviations in pixels: of a strong blur, and of one that is hard to see.
BLUR, SLIGHT_BLUR = 1.5, 0.5


class Reference:
    """What generated images are compared with. Floors and ceilings are computed when they are first needed."""

    def __init__(self, dataset: Dataset, extractor: FeatureExtractor | None) -> None:
        self.dataset, self.extractor = dataset, extractor
        self.count = min(IMAGES, len(dataset.test_images))
        self._floors: dict[bool, list[dict[str, float]]] = {}

    def measure(self, images: Tensor) -> dict[str, float]:
        """The figures of uint8 images `(N, 1, H, W)` against the test images."""
        assert self.extractor is not None, "needs a classifier"
        return measure(images, self._real, self.extractor)

    def floors(self, *, balanced: bool) -> list[dict[str, float]]:
        """The figures of each draw of training images, with balanced labels or with natural frequencies."""
        if balanced not in self._floors:
            draws = real_draws(self.dataset.train_labels, self.count, balanced=balanced)
            self._floors[balanced] = [self.measure(self.dataset.train_images[rows]) for rows in draws]
        return self._floors[balanced]

    @cached_property
    def ceilings(self) -> dict[str, dict[str, float]]:
        """The figures of each kind of images of `ceiling_images`, by its name."""
        return {name: self.measure(images) for name, images in ceiling_images(self.dataset, self.count).items()}

    @cached_property
    def label_agreements(self) -> list[float]:
        """As `label_agreements`, for the classifier of the protocol."""
        assert self.extractor is not None, "needs a classifier"
        return label_agreements(self.dataset, self.extractor, self.count)

    @cached_property
    def trained_accuracies(self) -> list[float]:
        """The accuracy of a classifier trained on each draw of training images with balanced labels."""
        accuracies = []
        for rows in real_draws(self.dataset.train_labels, self.count, balanced=True):
            images, labels = self.dataset.train_images[rows], self.dataset.train_labels[rows]
            accuracies.append(trained_accuracy(images, labels, self.dataset))
            log.info("a classifier trained on %d real images: accuracy %.4f", len(rows), accuracies[-1])
        return accuracies

    @cached_property
    def _real(self) -> Tensor:
        assert self.extractor is not None, "needs a classifier"
        return self.extractor.features(self.dataset.test_images[: self.count])


def label_agreements(dataset: Dataset, classifier: Classifier, count: int) -> list[float]:
    """The share of images whose label a classifier recognises, of each draw of test images with balanced labels.

    It has learned from the training images, and recognises more of them than of new images. Draws have a quarter of
    `count` images, so that there are several.
    """
    images, labels = dataset.test_images, dataset.test_labels
    return [
        label_agreement(classifier.probabilities(classifier.features(images[rows])), labels[rows])
        for rows in real_draws(labels, max(count // 4, 1), balanced=True)
    ]


def real_draws(labels: Tensor, count: int, *, balanced: bool) -> list[Tensor]:
    """The rows of disjoint random draws of images with these labels, int64 `(N,)` with N at most `count`.

    There are up to FLOOR_DRAWS draws, and at least one. With `balanced` the labels come in turn, each equally often,
    else as they are drawn.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    groups = [order]
    if balanced:
        groups = [order[labels[order] == label] for label in torch.unique(labels)]
    least = min(len(group) for group in groups)
    share = min(-(-count // len(groups)), least)
    return [
        torch.stack([group[first : first + share] for group in groups], dim=1).flatten()[:count]
        for first in range(0, min(FLOOR_DRAWS, least // share) * share, share)
    ]


def ceiling_images(dataset: Dataset, count: int) -> dict[str, Tensor]:
    """The ceilings by name, uint8 `(N, 1, H, W)` with N at most `count`.

    They are uniform noise, real images after a Gaussian blur, and training images of the first class. A second, slight
    blur leaves good images: it shows how much a distance depends on the sharpness of edges.
    """
    real = dataset.train_images[real_draws(dataset.train_labels, count, balanced=False)[0]]
    noise = torch.randint(256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {
        "noise": noise,
        "blurred": blurred(real, BLUR),
        "slightly_blurred": blurred(real, SLIGHT_BLUR),
        "one_class": dataset.train_images[dataset.train_labels == 0][:count],
    }


def blurred(images: Tensor, deviation: float) -> Tensor:
    """uint8 images `(N, 1, H, W)` after a Gaussian blur of a standard deviation in pixels."""
    size = 2 * round(3 * deviation) + 1
    smooth: Tensor = functional.gaussian_blur(images.float(), [size, size], [deviation, deviation])
    return smooth.round().to(torch.uint8)

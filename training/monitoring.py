"""Figures of a model after each epoch. The global random streams are not changed."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from training.archive import EagerArchive
from training.config import TrainConfig
from training.data import Dataset
from training.divergence import separation, spread, spread_within
from training.evaluation.feature_extractor import find_extractor
from training.evaluation.fidelity import Comparison
from training.evaluation.resizing import Shape, area_averages
from training.generation import Form, balanced_labels, draw_images, gives_labels
from training.randomness import preserved_random_state

log = logging.getLogger(__name__)

# The columns of a history that are figures; all others are losses.
SPREAD, SEPARATION, SELECTION_FIGURE = "spread", "separation", "frechet_distance"
FIGURES = (SPREAD, SEPARATION, SELECTION_FIGURE, "precision", "recall", "label_agreement")
IMAGES = 10_000
# Equally many of each of the first classes where images have labels, for the spread within a class.
SPREAD_IMAGES, SPREAD_CLASSES = 256, 8
SPREAD_SAMPLE = 2048  # training images
# No seed of the evaluation protocol: choosing an epoch by the noise that measures it would be a bias.
SEED = 2**31
# Number of training images to fit a prior to for the measurement of an epoch.
FITTED_IMAGES = 10_000


class EpochMonitor:
    """Generates images of the same noise after every epoch and measures them."""

    def __init__(self, dataset: Dataset, runs_dir: Path) -> None:
        """Without a classifier of this data only spread and separation are measured. Raises ClassifierDamaged."""
        self._classes = len(dataset.classes)
        self._dataset = dataset
        self._of_training: dict[Shape, TrainingFigures] = {}  # by the shape of the images
        extractor = find_extractor(dataset, runs_dir)
        # Training images, not test images: an epoch chosen by the test images would look better than it is.
        self._comparison = Comparison(extractor, dataset.train_images[:IMAGES]) if extractor else None
        if extractor is None:
            log.info("there is no classifier of %s: the last epoch is exported, not the best one", dataset.name)

    @property
    def measures_quality(self) -> bool:
        """Whether epochs can be compared by quality."""
        return self._comparison is not None

    def figures(self, archive: EagerArchive, form: Form, *, quality: bool) -> dict[str, float]:
        """Figures of generated images; none for a model that does not generate.

        Spread and separation are relative to those of the training images, which are averaged over areas where the
        model makes smaller ones. With `quality` there are also the figures of the comparison in features, except for
        images of another size than the data's. Raises NotANumber.
        """
        if "generate" not in archive.networks:
            return {}
        with preserved_random_state():
            labels = balanced_labels(SPREAD_IMAGES, min(self._classes, SPREAD_CLASSES))
            images = draw_images(archive, form, labels, SEED)
            real = self._training_figures((1, images.shape[2], images.shape[3]))
            figures = {SPREAD: real.relative_spread(images, labels if gives_labels(form) else None)}
            figures[SEPARATION] = separation(images) / real.separation if real.separation > 0 else 1.0
            if quality and self._comparison and images.shape[1:] == self._dataset.train_images.shape[1:]:
                started = time.monotonic()
                labels = balanced_labels(IMAGES, self._classes)
                images = draw_images(archive, form, labels, SEED)
                figures |= self._comparison.figures(images, labels if gives_labels(form) else None)
                values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
                log.info("%s; of %d images, in %.1f s", values, IMAGES, time.monotonic() - started)
        return figures

    def _training_figures(self, shape: Shape) -> "TrainingFigures":
        if shape not in self._of_training:
            self._of_training[shape] = TrainingFigures.of(self._dataset, shape)
        return self._of_training[shape]


@dataclass(frozen=True)
class TrainingFigures:
    """Spread and separation of the training images."""

    spread: float
    spread_within: float
    separation: float

    @classmethod
    def of(cls, dataset: Dataset, shape: Shape) -> Self:
        """The figures of the training images as area averages of a shape."""
        in_first_classes = dataset.train_labels < SPREAD_CLASSES
        images, labels = dataset.train_images[in_first_classes], dataset.train_labels[in_first_classes][:SPREAD_SAMPLE]
        # With replacement: a model that has memorised twenty images may repeat each of them.
        source = torch.Generator().manual_seed(SEED)
        drawn = images[torch.randint(len(images), (SPREAD_IMAGES,), generator=source)]
        return cls(
            spread(area_averages(dataset.train_images[:SPREAD_SAMPLE], shape)),
            spread_within(area_averages(images[:SPREAD_SAMPLE], shape), labels),
            separation(area_averages(drawn, shape)),
        )

    def relative_spread(self, images: Tensor, labels: Tensor | None) -> float:
        """The spread of images `(N, 1, H, W)` over that of the training images, within classes where there are labels.

        A data set of equal images has no spread to compare with.
        """
        if labels is not None and self.spread_within > 0:
            return spread_within(images, labels) / self.spread_within
        return spread(images) / max(self.spread, 1e-6)


def losses_of(row: dict[str, float]) -> dict[str, float]:
    """The losses in a row of a history."""
    return {name: value for name, value in row.items() if name != "epoch" and name not in FIGURES}


def is_due(config: TrainConfig, epoch: int) -> bool:
    """Whether quality is measured after an epoch, counted from 1."""
    return config.evaluate_every > 0 and (epoch % config.evaluate_every == 0 or epoch == config.epochs)

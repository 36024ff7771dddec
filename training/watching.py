"""What is measured of a model while it learns. Knows no family; draws from no global stream."""

import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.data import Dataset
from training.divergence import separation, spread, spread_within
from training.evaluation.extractor import find_extractor
from training.evaluation.monitor import IMAGES, Monitor
from training.randomness import shielded
from training.sampling import Controls, Form, balanced, draw_images, gives_labels

log = logging.getLogger(__name__)

# The columns of a history that are no losses.
SPREAD, SEPARATION, CHOICE = "spread", "separation", "frechet_distance"
FIGURES = (SPREAD, SEPARATION, CHOICE, "precision", "recall", "label_agreement")
# Of the first few classes, as many of each, where the images have labels: their spread is then that within a class.
SPREAD_IMAGES, SPREAD_CLASSES = 256, 8
SPREAD_SAMPLE = 2048  # training images
# None that a checkpoint is measured with (evaluation/protocol.py): noise that chose an epoch would flatter it.
SEED = 2**31
# What is fitted to the latents to measure an epoch by is fitted to so many training images.
FITTED_IMAGES = 10_000
# Pictures of the same latents after every epoch, with nothing fitted to them.
WATCHED = Controls(prior="normal")


class Watch:
    """The same noise through the averaged networks after every epoch, and what its images measure."""

    def __init__(self, dataset: Dataset, runs_dir: Path) -> None:
        """Figures of quality need the classifier of this data; where there is none, only spread and separation are.

        Raises ClassifierDamaged.
        """
        self._classes = len(dataset.classes)
        few = dataset.train_labels < SPREAD_CLASSES
        self._spread = spread(dataset.train_images[:SPREAD_SAMPLE])
        self._spread_within = spread_within(
            dataset.train_images[few][:SPREAD_SAMPLE], dataset.train_labels[few][:SPREAD_SAMPLE]
        )
        self._separation = _drawn_separation(dataset.train_images[few])
        extractor = find_extractor(dataset, runs_dir)
        # The test images choose nothing: an epoch chosen by them would look better than it is.
        self._monitor = Monitor(extractor, dataset.train_images) if extractor else None
        if extractor is None:
            log.info("there is no classifier of %s: the last epoch will ship, not the best", dataset.name)

    @property
    def judges(self) -> bool:
        """Whether epochs can be told apart by quality."""
        return self._monitor is not None

    def figures(self, network: nn.Module, form: Form, *, quality: bool) -> dict[str, float]:
        """Spread and separation of a few images over those of the training images; with `quality`, the monitor's too.

        `network` is an archive of the form given. Raises ValueError for images that are not numbers.
        """
        with shielded():
            labels = balanced(SPREAD_IMAGES, min(self._classes, SPREAD_CLASSES))
            images = draw_images(network, form, labels, SEED)
            figures = {SPREAD: self._spread_share(images, labels if gives_labels(form) else None)}
            figures[SEPARATION] = separation(images) / self._separation if self._separation > 0 else 1.0
            if quality and self._monitor:
                started = time.monotonic()
                labels = balanced(IMAGES, self._classes)
                images = draw_images(network, form, labels, SEED)
                figures |= self._monitor.figures(images, labels if gives_labels(form) else None)
                values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
                log.info("%s; of %d images, in %.1f s", values, IMAGES, time.monotonic() - started)
        return figures

    def _spread_share(self, images: Tensor, labels: Tensor | None) -> float:
        # Data whose images are all one have no spread to compare with.
        if labels is not None and self._spread_within > 0:
            return spread_within(images, labels) / self._spread_within
        return spread(images) / max(self._spread, 1e-6)


def _drawn_separation(images: Tensor) -> float:
    # With replacement: a model that has learned twenty images by heart may make each of them over and over.
    source = torch.Generator().manual_seed(SEED)
    return separation(images[torch.randint(len(images), (SPREAD_IMAGES,), generator=source)])


def losses_of(row: dict[str, float]) -> dict[str, float]:
    """A row of a history without the epoch and the figures."""
    return {name: value for name, value in row.items() if name != "epoch" and name not in FIGURES}


def is_due(config: TrainConfig, epoch: int) -> bool:
    """Whether quality is measured after this epoch, counted from 1."""
    return config.evaluate_every > 0 and (epoch % config.evaluate_every == 0 or epoch == config.epochs)

"""What is measured of a model while it learns. Knows no family; draws from no global stream."""

import logging
import time
from pathlib import Path

from torch import nn

from training.config import TrainConfig
from training.data import Dataset
from training.divergence import spread
from training.evaluation.extractor import find_extractor
from training.evaluation.monitor import IMAGES, Monitor
from training.randomness import shielded
from training.sampling import Controls, Form, balanced, draw_images, gives_labels

log = logging.getLogger(__name__)

# The columns of a history that are no losses.
SPREAD, CHOICE = "spread", "frechet_distance"
FIGURES = (SPREAD, CHOICE, "precision", "recall", "label_agreement")
SPREAD_IMAGES = 256
SEED = 0
# What is fitted to the latents to measure an epoch by is fitted to so many training images.
FITTED_IMAGES = 10_000
# Pictures of the same latents after every epoch, with nothing fitted to them.
WATCHED = Controls(prior="normal")


class Watch:
    """The same noise through the averaged networks after every epoch, and what its images measure."""

    def __init__(self, dataset: Dataset, runs_dir: Path) -> None:
        """Figures of quality need the classifier of this data; where there is none, only the spread is measured.

        Raises ClassifierDamaged.
        """
        self._classes = len(dataset.classes)
        self._spread = spread(dataset.train_images[:SPREAD_IMAGES])
        extractor = find_extractor(dataset, runs_dir)
        self._monitor = Monitor(extractor, dataset.test_images) if extractor else None
        if extractor is None:
            log.info("there is no classifier of %s: the last epoch will ship, not the best", dataset.name)

    @property
    def judges(self) -> bool:
        """Whether epochs can be told apart by quality."""
        return self._monitor is not None

    def figures(self, network: nn.Module, form: Form, *, quality: bool) -> dict[str, float]:
        """The spread of a few images over that of the training images; with `quality`, the monitor's figures too.

        `network` is an archive of the form given. Raises ValueError for images that are not numbers.
        """
        started = time.monotonic()
        count = IMAGES if quality and self._monitor else SPREAD_IMAGES
        labels = balanced(count, self._classes)
        with shielded():
            images = draw_images(network, form, labels, SEED)
            # Black images have no spread to compare with.
            figures = {SPREAD: spread(images[:SPREAD_IMAGES]) / max(self._spread, 1e-6)}
            if quality and self._monitor:
                asked = labels if gives_labels(form) else None
                figures |= self._monitor.figures(images, asked)
                values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
                log.info("%s; of %d images, in %.1f s", values, count, time.monotonic() - started)
        return figures


def losses_of(row: dict[str, float]) -> dict[str, float]:
    """A row of a history without the epoch and the figures."""
    return {name: value for name, value in row.items() if name != "epoch" and name not in FIGURES}


def is_due(config: TrainConfig, epoch: int) -> bool:
    """Whether quality is measured after this epoch, counted from 1."""
    return config.evaluate_every > 0 and (epoch % config.evaluate_every == 0 or epoch == config.epochs)

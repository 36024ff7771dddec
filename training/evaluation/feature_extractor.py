"""Trained classifiers on disk, and the features and class probabilities that they give.

Figures of different classifiers are not comparable, so that the digest of the weights is recorded with the figures.
"""

import hashlib
import io
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.checkpoints.files import write_atomically
from training.config import DATASET_FORMS, DATASET_PATTERN, Choices
from training.data import Dataset, to_unit_range
from training.evaluation.lenet5 import ROWS, LeNet5, accuracy, train_classifier
from training.randomness import preserved_random_state

log = logging.getLogger(__name__)

FOLDER = "classifiers"
SHIPPED = Path(__file__).parent / FOLDER


class ClassifierDamaged(Exception):
    """A classifier cannot be read, or its weights are not those of its record."""


class ClassifierConfig(Choices):
    """A LeNet-5 classifier of a data set, whose features the quality figures use."""

    epochs: int = Field(24, ge=1)
    seed: int = Field(0, ge=0)
    dataset: str = Field("mnist", pattern=DATASET_PATTERN, description=DATASET_FORMS)
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")


class ClassifierRecord(BaseModel):
    """The record of a classifier: `<name>.json` beside `<name>.pt`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(description="of the weights' file")
    dataset: str
    dataset_digest: str
    classes: int
    test_images: int
    test_accuracy: float = Field(ge=0, le=1)
    epochs: int
    seed: int
    versions: dict[str, str]


class Classifier(Protocol):
    """Takes uint8 images `(N, 1, H, W)` to features, and features to class probabilities `(N, classes)`."""

    def features(self, images: Tensor) -> Tensor: ...  # noqa: D102
    def probabilities(self, features: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class FeatureExtractor:
    """Takes quantised images to features, and features to class probabilities."""

    network: LeNet5
    record: ClassifierRecord

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 images `(N, 1, H, W)` to float32 features `(N, 84)`."""
        return torch.cat([self.network.features(to_unit_range(batch)) for batch in torch.split(images, ROWS)])

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Features `(N, 84)` to the probability of each class, float32 `(N, classes)`."""
        logits: Tensor = self.network.to_logits(features)
        return logits.softmax(dim=1)


def make_classifier(config: ClassifierConfig, dataset: Dataset) -> Path:
    """Train a classifier and save it under `runs_dir/classifiers`. Returns the file of the weights.

    It replaces an earlier classifier of the same data. Raises TooFewImages, and OSError on a full disk.
    """
    network = train_classifier(dataset, config.epochs, config.seed)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    record = ClassifierRecord(
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        classes=len(dataset.classes),
        test_images=len(dataset.test_images),
        test_accuracy=accuracy(network, dataset.test_images, dataset.test_labels),
        epochs=config.epochs,
        seed=config.seed,
        versions={"python": platform.python_version(), "torch": torch.__version__},
    )
    weights = config.runs_dir / FOLDER / f"{dataset.digest[:12]}.pt"
    write_atomically(weights, buffer.getvalue())
    write_atomically(weights.with_suffix(".json"), record.model_dump_json(indent=2).encode() + b"\n")
    log.info("%s is right on %.2f %% of %d test images", weights, 100 * record.test_accuracy, record.test_images)
    return weights


def find_extractor(dataset: Dataset, runs_dir: Path) -> FeatureExtractor | None:
    """The classifier of exactly this data: the shipped one, else one under `runs_dir`, else None.

    Raises ClassifierDamaged, also for an unreadable record, which may be that of this data.
    """
    for folder in (SHIPPED, runs_dir / FOLDER):
        for path in sorted(folder.glob("*.json")):
            record = read_record(path)
            if record.dataset_digest == dataset.digest:
                if record.classes != len(dataset.classes):
                    raise ClassifierDamaged(f"{path} has {record.classes} classes, the data {len(dataset.classes)}")
                return load_extractor(path.with_suffix(".pt"), record)
    return None


def read_record(path: Path) -> ClassifierRecord:
    """The record in a file. Raises ClassifierDamaged."""
    try:
        return ClassifierRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ClassifierDamaged(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ClassifierDamaged(f"{path}: {error.errors()[0]['msg']}") from error


def load_extractor(weights: Path, record: ClassifierRecord) -> FeatureExtractor:
    """The classifier in a file. The global random streams are not changed. Raises ClassifierDamaged."""
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise ClassifierDamaged(f"{weights} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.sha256:
        raise ClassifierDamaged(f"{weights} has SHA-256 {digest}, its record says {record.sha256}")
    with preserved_random_state():  # the initialisation draws random numbers
        network = LeNet5(record.classes)
    network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return FeatureExtractor(network.eval(), record)

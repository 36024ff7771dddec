"""Measure a checkpoint and write the figures, the pictures and the card. Its archives are never changed."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from torch import nn

from app.checkpoints.files import write_atomically
from app.checkpoints.manifest import Figure, Manifest
from app.checkpoints.store import read_archive, read_manifest
from training.archive import open_archive
from training.card import PICTURES, card
from training.config import DATASET_FORMS, DATASET_PATTERN, Choices
from training.data import Dataset
from training.evaluation.eval_protocol import SEEDS, measure_quality
from training.evaluation.feature_extractor import Classifier, find_extractor, load_extractor, read_record
from training.evaluation.held_out import ArchivedClassifier, held_out_figures
from training.evaluation.reference import Reference
from training.evaluation.resizing import area_averages
from training.film import add_film
from training.generation import balanced_labels, draw_images
from training.previews import example_grid, neighbour_grid, preview, reconstruction_grid, traversal_grid
from training.quality_report import quality_tables
from training.sources import load_dataset

log = logging.getLogger(__name__)

NEIGHBOURS = 30


class EvaluateConfig(Choices):
    """Which checkpoints to measure, and on which data."""

    names: tuple[str, ...] = Field(min_length=1)
    seeds: int = Field(len(SEEDS), ge=3, description="number of sampling seeds, from 0")
    dataset: str | None = Field(
        None, pattern=DATASET_PATTERN, description=f"{DATASET_FORMS}; default that of each checkpoint's training"
    )
    data_dir: Path = Path("data")
    runs_dir: Path = Field(Path("runs"), description="where to look for a classifier of the data")
    models_dir: Path = Path("models")
    document: Path | None = Field(None, description="Markdown file whose tables of quality are replaced")
    classifier: str | None = Field(
        None, description="measure by another classifier, a .pt file or a model that classifies, and write nothing"
    )

    @model_validator(mode="after")
    def _check_document(self) -> Self:
        if self.classifier is not None and self.document is not None:
            raise ValueError("--classifier writes nothing: leave out --document")
        return self


class DocumentConfig(Choices):
    """Where the checkpoints, their runs and the tables of quality are."""

    runs_dir: Path = Field(Path("runs"), description="where to look for the run that made a checkpoint")
    models_dir: Path = Path("models")
    document: Path = Field(Path("docs/quality.md"), description="Markdown file whose tables of quality are replaced")


class CannotEvaluate(Exception):
    """A checkpoint or a classifier does not fit, or changed meanwhile, or a document has no place for the tables."""


def evaluate_named(config: EvaluateConfig) -> Iterator[Manifest]:
    """Measure checkpoints one by one. Raises as `evaluate_checkpoint`, and DataUnavailable."""
    references: dict[str, Reference] = {}
    for name in config.names:
        source = dataset_of(name, config)
        if source not in references:
            references[source] = reference_of(load_dataset(source, config.data_dir), config.runs_dir)
        yield evaluate_against(references[source], config.models_dir / name, range(config.seeds))
    if config.document is not None:
        write_tables(config.document, config.models_dir)


def dataset_of(name: str, config: EvaluateConfig) -> str:
    """The data to measure a checkpoint on, as `load_dataset` takes it. Raises CheckpointError."""
    if config.dataset is not None:
        return config.dataset
    return str(read_manifest(config.models_dir / name / "manifest.json").training.config.get("dataset", "mnist"))


def evaluate_held_out(config: EvaluateConfig) -> Iterator[tuple[str, dict[str, Figure]]]:
    """The names of the checkpoints with their figures by `config.classifier`. Raises as `evaluate_named`."""
    assert config.classifier is not None, "needs a classifier"
    sources: dict[str, tuple[Dataset, Classifier]] = {}
    for name in config.names:
        source = dataset_of(name, config)
        if source not in sources:
            loaded = load_dataset(source, config.data_dir)
            sources[source] = loaded, find_classifier(config.classifier, config.models_dir, loaded)
        dataset, classifier = sources[source]
        manifest, archive = open_checkpoint(config.models_dir / name, dataset)
        if "generate" not in manifest.capabilities or manifest.image.shape != dataset.test_images.shape[1:]:
            raise CannotEvaluate(f"{name} generates no images that the classifier takes")
        yield name, held_out_figures(archive, manifest, dataset, classifier, range(config.seeds))


def find_classifier(name: str, models_dir: Path, dataset: Dataset) -> Classifier:
    """A classifier: the weights that `python -m training classifier` wrote, if the name ends in .pt, else a checkpoint.

    Raises CannotEvaluate where it has learned from other data, CheckpointError and ClassifierDamaged.
    """
    path = Path(name)
    if path.suffix == ".pt":
        record = read_record(path.with_suffix(".json"))
        if record.dataset_digest != dataset.digest:
            raise CannotEvaluate(f"{path} was trained on {record.dataset}, not on this {dataset.name}")
        return load_extractor(path, record)
    manifest, archive = open_checkpoint(models_dir / name, dataset)
    if "classify" not in manifest.capabilities:
        raise CannotEvaluate(f"{name} does not classify")
    return ArchivedClassifier(archive)


def write_documents(config: DocumentConfig) -> None:
    """Write all cards and the tables of quality again from the manifests, without measuring.

    Where the run that made a checkpoint is at hand, write its history and film beside it. Raises as `write_tables`.
    """
    for path in sorted(config.models_dir.glob("*/manifest.json")):
        manifest = read_manifest(path)
        add_film(path.parent, manifest, config.runs_dir / manifest.name)
        write_card(path.parent, manifest)
    write_tables(config.document, config.models_dir)


def write_card(directory: Path, manifest: Manifest) -> None:
    """Replace the card of a checkpoint. Raises OSError."""
    present = [name for name in PICTURES if (directory / name).is_file()]
    write_atomically(directory / "card.md", card(manifest, present).encode())


def write_tables(document: Path, models_dir: Path) -> None:
    """Replace the tables of quality in a document by those of all measured checkpoints.

    Raises CannotEvaluate where the document is not text or has no marks for it.
    """
    try:
        text = document.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CannotEvaluate(f"{document} is not UTF-8") from error
    before, begin, rest = text.partition("<!-- quality: begin -->")
    _, end, after = rest.partition("<!-- quality: end -->")
    if not (begin and end):
        raise CannotEvaluate(f"{document} has no marks where the tables of quality begin and end")
    manifests = [read_manifest(path) for path in sorted(models_dir.glob("*/manifest.json"))]
    write_atomically(document, f"{before}{begin}\n{quality_tables(manifests)}\n{end}{after}".encode())


def evaluate_checkpoint(directory: Path, dataset: Dataset, runs_dir: Path, seeds: Sequence[int] = SEEDS) -> Manifest:
    """Measure a checkpoint and write the figures into its manifest, its pictures and its card. Returns the manifest.

    `runs_dir` is searched for the classifier of the data. Replacing the manifest is atomic: the service reads the old
    figures or the new ones. Raises CannotEvaluate, CheckpointError, ClassifierDamaged, NotANumber and OSError.
    """
    return evaluate_against(reference_of(dataset, runs_dir), directory, seeds)


def reference_of(dataset: Dataset, runs_dir: Path) -> Reference:
    """The floors and ceilings of the data, with its classifier if there is one. Raises ClassifierDamaged."""
    extractor = find_extractor(dataset, runs_dir)
    if extractor is None:
        log.info("no classifier of %s: `python -m training classifier` trains one", dataset.name)
    return Reference(dataset, extractor)


def evaluate_against(reference: Reference, directory: Path, seeds: Sequence[int]) -> Manifest:
    """Evaluate a checkpoint as `evaluate_checkpoint` does. Several checkpoints can share a reference."""
    path, dataset = directory / "manifest.json", reference.dataset
    manifest, archive = open_checkpoint(directory, dataset)
    quality = measure_quality(archive, manifest, reference, seeds)
    pictures = pictures_of(archive, manifest, dataset, seeds[0])
    if read_manifest(path).archives != manifest.archives:
        raise CannotEvaluate(f"{directory} was replaced while it was measured")
    manifest = manifest.model_copy(update={"quality": quality})
    write_atomically(path, manifest.file_content())
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    write_card(directory, manifest)
    return manifest


def open_checkpoint(directory: Path, dataset: Dataset) -> tuple[Manifest, nn.Module]:
    """The manifest and the float32 archive of a checkpoint of this data. Raises CannotEvaluate and CheckpointError."""
    manifest = read_manifest(directory / "manifest.json")
    if manifest.dataset.digest != dataset.digest:
        raise CannotEvaluate(f"{directory} was trained on {manifest.dataset.name}, not on this {dataset.name}")
    entry = manifest.archives["float32"]
    return manifest, open_archive(read_archive(directory / entry.file, entry))


def pictures_of(archive: nn.Module, manifest: Manifest, dataset: Dataset, seed: int) -> dict[str, bytes]:
    """The pictures that the capabilities of a checkpoint allow, by file name."""
    shown = preview(archive, manifest.capabilities, manifest, dataset, manifest.training.seed)
    pictures = dict([shown] if shown else []) | {"examples.png": example_grid(dataset, manifest.image.shape)}
    if "generate" in manifest.capabilities:
        images = draw_images(archive, manifest, balanced_labels(NEIGHBOURS, len(dataset.classes)), seed)
        train_images = dataset.train_images[: manifest.dataset.train_images]
        pictures["neighbours.png"] = neighbour_grid(images, area_averages(train_images, manifest.image.shape))
        if manifest.smooth_latents:
            pictures["traversals.png"] = traversal_grid(archive, manifest, dataset, seed)
    if "decode" in manifest.capabilities and {"encode", "embed"} & set(manifest.capabilities):
        pictures["reconstructions.png"] = reconstruction_grid(archive, manifest, dataset)
    return pictures

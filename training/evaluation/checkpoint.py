"""A checkpoint gets its figures, its pictures and its card. Its archives are read and never changed."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.checkpoints.manifest import Manifest
from training.card import PICTURES, card, quality_table
from training.config import DATASET_FORMS, DATASET_PATTERN
from training.data import Dataset
from training.datasets import load_dataset
from training.evaluation.extractor import find_extractor
from training.evaluation.protocol import SEEDS, evaluate
from training.files import write_atomically
from training.pictures import neighbour_grid, sample_grid, traversal_grid
from training.sampling import balanced, draw_images
from training.torchscript import load_archive

log = logging.getLogger(__name__)

NEIGHBOURS = 30


class EvaluateConfig(BaseModel):
    """Checkpoints and what they are measured with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = Field(min_length=1)
    seeds: int = Field(len(SEEDS), ge=3, description="so many sampling seeds, from 0")
    dataset: str = Field("mnist", pattern=DATASET_PATTERN, description=DATASET_FORMS)
    data_dir: Path = Path("data")
    runs_dir: Path = Field(Path("runs"), description="where a classifier of the data may be")
    models_dir: Path = Path("models")
    document: Path | None = Field(None, description="Markdown file whose table of this quality is made anew")


class CannotEvaluate(Exception):
    """There is no such checkpoint, or it was trained on other data, or it changed meanwhile."""


def evaluate_named(config: EvaluateConfig) -> Iterator[Manifest]:
    """Measure checkpoints one after the other. Raises as `evaluate_checkpoint`, DataUnavailable."""
    dataset = load_dataset(config.dataset, config.data_dir)
    protocol = ""
    for name in config.names:
        manifest = evaluate_checkpoint(config.models_dir / name, dataset, config.runs_dir, range(config.seeds))
        assert manifest.quality is not None, "it has just been measured"
        protocol = manifest.quality.protocol
        yield manifest
    if config.document is not None:
        write_table(config.document, config.models_dir, protocol)


def write_table(document: Path, models_dir: Path, protocol: str) -> None:
    """Make the table of quality in a document anew, of all checkpoints that this protocol has measured.

    Raises CannotEvaluate where the document has no place for it.
    """
    before, begin, rest = document.read_text().partition("<!-- quality: begin -->")
    _, end, after = rest.partition("<!-- quality: end -->")
    if not (begin and end):
        raise CannotEvaluate(f"{document} has no lines that say where the table of quality begins and ends")
    manifests = [read_manifest(path.parent) for path in sorted(models_dir.glob("*/manifest.json"))]
    measured = [manifest for manifest in manifests if manifest.quality and manifest.quality.protocol == protocol]
    write_atomically(document, f"{before}{begin}\n{quality_table(measured)}\n{end}{after}".encode())


def evaluate_checkpoint(directory: Path, dataset: Dataset, runs_dir: Path, seeds: Sequence[int] = SEEDS) -> Manifest:
    """Measure a checkpoint and write what was found into its manifest, its pictures and its card. Gives the manifest.

    `runs_dir` is where the data's classifier is looked for. Replacing the manifest is one step: the service reads the
    old figures or the new ones. Raises CannotEvaluate, ArchiveDamaged, ClassifierDamaged, NotANumber and OSError.
    """
    manifest = read_manifest(directory)
    if manifest.dataset.digest != dataset.digest:
        raise CannotEvaluate(f"{directory} was trained on {manifest.dataset.name}, not on this {dataset.name}")
    archive = load_archive(directory, manifest.archives["float32"])
    extractor = find_extractor(dataset, runs_dir)
    if extractor is None:
        log.info("no classifier of %s: `python -m training classifier` trains one", dataset.name)
    quality = evaluate(archive, manifest, dataset, extractor, seeds)
    pictures = {}
    if "generate" in manifest.capabilities:
        classes, seed = len(dataset.classes), seeds[0]
        images = draw_images(archive, manifest, balanced(NEIGHBOURS, classes), seed)
        pictures = {
            "samples.png": sample_grid(archive, manifest, classes, manifest.training.seed),
            "neighbours.png": neighbour_grid(images, dataset.train_images[: manifest.dataset.train_images]),
            "traversals.png": traversal_grid(archive, manifest, dataset, seed),
        }
    if read_manifest(directory).archives != manifest.archives:
        raise CannotEvaluate(f"{directory} was replaced while it was measured")
    manifest = manifest.model_copy(update={"quality": quality})
    write_atomically(directory / "manifest.json", manifest.file_content())
    for name, content in pictures.items():
        write_atomically(directory / name, content)
    present = [name for name in PICTURES if (directory / name).is_file()]
    write_atomically(directory / "card.md", card(manifest, present).encode())
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint. Raises CannotEvaluate where there is none that can be read."""
    path = directory / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CannotEvaluate(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise CannotEvaluate(f"{path}: {error.errors()[0]['msg']}") from error

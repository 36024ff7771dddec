"""From a trained run to a checkpoint in `models/`: archives, manifest, card and curves."""

import hashlib
import logging
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.checkpoints.capabilities import CAPABILITIES
from app.checkpoints.files import remove_partial, write_atomically
from app.checkpoints.manifest import (
    PIXEL_BOUND,
    Archive,
    DatasetUsed,
    Deviation,
    Figure,
    Golden,
    ImageForm,
    Manifest,
    Normalization,
    Precision,
    TrainingRecord,
)
from app.checkpoints.pictures import HISTORY, NAMES
from training.archive import EagerArchive, open_archive, script
from training.card import card
from training.config import TrainConfig
from training.contrast import adjust_contrast
from training.curves import curves_png
from training.data import Dataset
from training.divergence import check_weights
from training.evaluation.feature_extractor import find_extractor
from training.film import film_files
from training.golden import deviation, golden_rows
from training.learner import Learner
from training.monitoring import losses_of
from training.sources import FOLDER

log = logging.getLogger(__name__)

# Images by which a bfloat16 archive is compared with the float32 one.
DEVIATION_IMAGES = 8192

# The entry of each archive in the manifest, and its content.
Files = dict[Precision, tuple[Archive, bytes]]


@dataclass(frozen=True)
class Trained:
    """How far the exported networks are trained, by how many processes, and the CPU time of the whole run."""

    epoch: int  # of the history, from 1
    steps: int = 0  # of the unfinished epoch after it
    processes: int = 1
    cpu_s: float | None = None  # of the first process, in seconds; None if unknown


def export(
    config: TrainConfig,
    learner: Learner,
    dataset: Dataset,
    history: list[dict[str, float]],
    trained: Trained | None = None,
) -> Path:
    """Write `models_dir/name`: archives, manifest, card, curves, history and film. Returns the directory.

    The archive is the fast form of the trained networks, scripted, reloaded and compared with the textbook form. A
    bfloat16 archive is added where the family has such a form and its images are within PIXEL_BOUND of those of the
    float32 archive. `trained` defaults to the whole history in one process. The evaluation adds quality and pictures.

    Replacing the manifest is the switch. Raises Diverged, ExportMismatch, ClassifierDamaged, and OSError on a full
    disk: before the switch the previous checkpoint is untouched; after it the new one is whole, and only its card and
    pictures may be old.
    """
    check_weights(config, learner)
    training_set = (dataset.train_images[: config.train_images], dataset.train_labels[: config.train_images])
    eager = learner.archive(training_set).cpu().to(memory_format=torch.contiguous_format)
    contrast = 1.0
    if learner.chooses_contrast:
        contrast = adjust_contrast(eager, learner, training_set, find_extractor(dataset, config.runs_dir))
    files, golden = archive_files(config, learner, eager, dataset)
    record = training_record(
        config, eager, history, trained or Trained(len(history)), contrast, learner.figures(dataset)
    )
    manifest = manifest_of(config, learner, dataset, files, golden, record)
    shown = {"curves.png": curves_png(history)} | film_files(manifest, history, config.run_dir)
    return write_checkpoint(config.models_dir, manifest, files, shown)


def archive_files(
    config: TrainConfig, learner: Learner, eager: EagerArchive, dataset: Dataset
) -> tuple[Files, dict[str, Golden]]:
    """The archives by precision, and the golden rows of the float32 one. Raises ExportMismatch."""
    fast = learner.fast_archive(eager, torch.float32)
    assert fast is not None, "every family has a float32 form"
    content = script(fast)
    archive = open_archive(content)
    golden = golden_rows(eager, archive, learner, dataset)
    files: Files = {"float32": (archive_entry(config.name, content), content)}
    if lower := low_precision_archive(config, learner, eager, archive, dataset):
        files["bfloat16"] = lower
    return files, golden


def manifest_of(
    config: TrainConfig,
    learner: Learner,
    dataset: Dataset,
    files: Files,
    golden: dict[str, Golden],
    record: TrainingRecord,
) -> Manifest:
    """The manifest of a checkpoint that is not measured yet."""
    image = image_form(learner.image_shape, dataset)
    learned = config.learned_images(len(dataset.train_images))
    return Manifest(
        name=config.name,
        family=config.family,
        capabilities=tuple(golden),
        conditional=learner.conditional,
        latent_dim=learner.latent_dim,
        priors=learner.priors,
        noise_dim=learner.noise_dim,
        sampling=learner.sampling,
        smooth_latents=learner.smooth_latents,
        sequential=learner.sequential,
        image=image,
        input_image=None if learner.input_shape == image.shape else image_form(learner.input_shape, dataset),
        classes=dataset.classes,
        archives={precision: entry for precision, (entry, _) in files.items()},
        dataset=DatasetUsed(name=dataset.name, digest=dataset.digest, train_images=learned),
        training=record,
        golden=golden,
    )


def low_precision_archive(
    config: TrainConfig, learner: Learner, eager: EagerArchive, reference: nn.Module, dataset: Dataset
) -> tuple[Archive, bytes] | None:
    """The bfloat16 archive, where the family has one whose images are within PIXEL_BOUND of the float32 ones."""
    makers = {eager.networks[name]: name for name in eager.networks if CAPABILITIES[name].low_precision}
    fast = learner.fast_archive(eager, torch.bfloat16) if makers else None
    if fast is None:
        return None
    content = script(fast)
    lower = open_archive(content)
    differences = [
        deviation(reference, lower, learner, dataset, capability, DEVIATION_IMAGES, config.seed)
        for capability in makers.values()
    ]
    largest, mean = torch.tensor(differences, dtype=torch.float64).amax(dim=0).tolist()  # keeps NaN
    if not largest <= PIXEL_BOUND:
        log.info(
            "no bfloat16 archive: a pixel differs by %.2f/255, %g/255 is allowed", 255 * largest, 255 * PIXEL_BOUND
        )
        return None
    return archive_entry(config.name, content, Deviation(images=DEVIATION_IMAGES, largest=largest, mean=mean)), content


def image_form(shape: tuple[int, int, int], dataset: Dataset) -> ImageForm:
    """The form of grey images of a shape, normalized as those of the data set: the box is scaled with the width."""
    channels, height, width = shape
    assert channels == 1, "images are grey"
    normalization = None
    if dataset.box:
        normalization = Normalization(box=max(1, round(dataset.box * width / dataset.train_images.shape[3])))
    return ImageForm(shape=(1, height, width), normalization=normalization)


def write_checkpoint(models_dir: Path, manifest: Manifest, files: Files, pictures: dict[str, bytes]) -> Path:
    """Write archives, manifest, pictures and history by file name, and card, in this order. Returns the directory.

    Old archives and partial files are removed at the end. Raises OSError on a full disk.
    """
    directory = models_dir / manifest.name
    for entry, content in files.values():
        write_atomically(directory / entry.file, content)
    write_atomically(directory / "manifest.json", manifest.file_content())
    for name, picture in pictures.items():
        write_atomically(directory / name, picture)
    # The other pictures show the previous weights.
    for stale in {HISTORY, *(f"{name}.png" for name in NAMES)} - set(pictures):
        (directory / stale).unlink(missing_ok=True)
    write_atomically(directory / "card.md", card(manifest, tuple(pictures)).encode())
    for old in directory.glob("*.pt"):
        if old.name not in {archive.file for archive in manifest.archives.values()}:
            old.unlink()
    remove_partial(directory)
    return directory


def archive_entry(name: str, content: bytes, deviation: Deviation | None = None) -> Archive:
    """The entry of an archive in the manifest. The file name contains the digest."""
    digest = hashlib.sha256(content).hexdigest()
    return Archive(file=f"{name}-{digest[:12]}.pt", digest=digest, bytes=len(content), deviation=deviation)


def training_record(
    config: TrainConfig,
    eager: EagerArchive,
    history: list[dict[str, float]],
    trained: Trained,
    contrast: float,
    figures: dict[str, Figure],
) -> TrainingRecord:
    """The record that repeats the training, with its losses, the contrast and the figures measured at the export."""
    return TrainingRecord(
        config=portable(config),
        seed=config.seed,
        epochs=len(history),
        epoch=trained.epoch,
        steps=trained.steps,
        parameters=eager.parameter_counts(),
        losses=losses_of(history[trained.epoch - 1]),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        source_commit=source_commit(),
        processes=trained.processes,
        cpu_minutes=None if trained.cpu_s is None else round(trained.processes * trained.cpu_s / 60, 2),
        figures=figures,
        contrast=contrast,
    )


def portable(config: TrainConfig) -> dict[str, object]:
    """The config as JSON without paths of this machine."""
    values = config.model_dump(mode="json", exclude={"data_dir", "runs_dir", "models_dir"})
    if config.dataset.startswith(FOLDER):
        values["dataset"] = FOLDER + Path(config.dataset).name
    return values


def source_commit() -> str:
    """The commit of this source tree, with `-dirty` for uncommitted changes; `unknown` outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()

"""From a trained run to a checkpoint in `models/`: archives, their manifest, a card and pictures."""

import hashlib
import logging
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.checkpoints.manifest import (
    PIXEL_BOUND,
    Archive,
    DatasetUsed,
    Deviation,
    ImageForm,
    Manifest,
    Normalization,
    Precision,
    TrainingRecord,
)
from training.agreement import deviation, golden_cases, refuse_diverged
from training.card import PICTURES, card
from training.config import TrainConfig
from training.data import Dataset
from training.datasets import FOLDER
from training.families.family import Learner
from training.files import remove_partial, write_atomically
from training.pictures import sample_grid
from training.report import curves_png
from training.torchscript import script
from training.watching import losses_of

log = logging.getLogger(__name__)

# What a bfloat16 archive makes, and the float32 one, to be compared.
DEVIATION_IMAGES = 8192


@dataclass(frozen=True)
class Learned:
    """How far the networks that ship have learned, and by how many processes."""

    epoch: int  # of the history, from 1
    steps: int = 0  # of the epoch after it, which was not finished
    processes: int = 1


def export(
    config: TrainConfig,
    learner: Learner,
    dataset: Dataset,
    history: list[dict[str, float]],
    learned: Learned | None = None,
) -> Path:
    """Write `models_dir/name`: an archive a precision, their manifest, a card and samples. Gives the directory.

    What ships is the fast form of the trained network, which has `learned` as it says, else to the end of the history
    in one process. It is scripted, reloaded and compared with the textbook form first; its quality is measured
    after. A bfloat16 archive ships where its images are within PIXEL_BOUND of those of the float32 one. Replacing the
    manifest is the switch.
    Raises ExportMismatch, and OSError on a full disk: until the switch the previous checkpoint is
    untouched, from then on the new one is whole and only its card or its samples may be old.
    """
    refuse_diverged(learner)
    training_set = (dataset.train_images[: config.train_images], dataset.train_labels[: config.train_images])
    eager = learner.archive(training_set).cpu().to(memory_format=torch.contiguous_format).eval()
    content, archive = script(learner.fast_archive(eager, torch.float32))
    golden = golden_cases(eager, archive, learner, dataset)
    archives: dict[Precision, Archive] = {"float32": described(config.name, content)}
    contents: dict[Precision, bytes] = {"float32": content}
    content, lower = script(learner.fast_archive(eager, torch.bfloat16))
    largest, mean = deviation(archive, lower, learner, len(dataset.classes), config.seed, DEVIATION_IMAGES)
    if largest <= PIXEL_BOUND:
        measured = Deviation(images=DEVIATION_IMAGES, largest=largest, mean=mean)
        archives["bfloat16"] = described(config.name, content, measured)
        contents["bfloat16"] = content
    else:
        log.info("no bfloat16 archive: a pixel differs by %.2f/255, 2 are allowed", 255 * largest)
    manifest = Manifest(
        name=config.name,
        family=config.family,
        capabilities=tuple(golden),
        conditional=learner.conditional,
        latent_dim=learner.latent_dim,
        priors=learner.priors,
        noise_dim=learner.noise_dim,
        sampling=learner.sampling,
        image=ImageForm(shape=(1, 28, 28), normalization=Normalization(box=dataset.box) if dataset.box else None),
        classes=dataset.classes,
        archives=archives,
        dataset=DatasetUsed(
            name=dataset.name,
            digest=dataset.digest,
            train_images=len(dataset.train_images[: config.train_images]),
        ),
        training=training_record(config, eager, history, learned or Learned(len(history))),
        golden=golden,
    )
    pictures = {
        "samples.png": sample_grid(archive, learner, len(dataset.classes), config.seed),
        "curves.png": curves_png(history),
    }
    return write_checkpoint(config.models_dir, manifest, contents, pictures)


def write_checkpoint(
    models_dir: Path, manifest: Manifest, contents: dict[Precision, bytes], pictures: dict[str, bytes]
) -> Path:
    """Write archives, manifest, pictures by their files' names and card, in this order. Gives the directory.

    Raises OSError on a full disk. Archives that the manifest does not name go last, and what was half written.
    """
    directory = models_dir / manifest.name
    for precision, archive in manifest.archives.items():
        write_atomically(directory / archive.file, contents[precision])
    write_atomically(directory / "manifest.json", manifest.file_content())
    for name, picture in pictures.items():
        write_atomically(directory / name, picture)
    # Pictures that measuring makes are of the weights before; it makes them anew.
    for stale in set(PICTURES) - set(pictures):
        (directory / stale).unlink(missing_ok=True)
    write_atomically(directory / "card.md", card(manifest, tuple(pictures)).encode())
    for old in directory.glob("*.pt"):
        if old.name not in {archive.file for archive in manifest.archives.values()}:
            old.unlink()
    remove_partial(directory)
    return directory


def described(name: str, content: bytes, deviation: Deviation | None = None) -> Archive:
    """What the manifest says of an archive; its file's name holds its digest."""
    digest = hashlib.sha256(content).hexdigest()
    return Archive(file=f"{name}-{digest[:12]}.pt", digest=digest, bytes=len(content), deviation=deviation)


def training_record(
    config: TrainConfig, eager: nn.Module, history: list[dict[str, float]], learned: Learned
) -> TrainingRecord:
    """What it takes to train the same again, and what came of it."""
    return TrainingRecord(
        config=portable(config),
        seed=config.seed,
        epochs=len(history),
        epoch=learned.epoch,
        steps=learned.steps,
        parameters={name: count_parameters(part) for name, part in eager.named_children()},
        losses=losses_of(history[learned.epoch - 1]),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        source_commit=source_commit(),
        processes=learned.processes,
    )


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers in a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def portable(config: TrainConfig) -> dict[str, object]:
    """The config as JSON without the directories, which belong to one machine."""
    values = config.model_dump(mode="json", exclude={"data_dir", "runs_dir", "models_dir"})
    if config.dataset.startswith(FOLDER):
        values["dataset"] = FOLDER + Path(config.dataset).name
    return values


def source_commit() -> str:
    """The commit of this source tree, marked where the tree differs from it; `unknown` outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()

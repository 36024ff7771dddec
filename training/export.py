"""From a trained run to a checkpoint in `models/`. The one place in training that names TorchScript.

TorchScript is deprecated upstream in favour of `torch.export`; the manifest's `format` is where a
successor will show.
"""

import hashlib
import io
import logging
import platform
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.checkpoints.manifest import (
    PIXEL_BOUND,
    Archive,
    Capability,
    DatasetUsed,
    Deviation,
    Golden,
    ImageForm,
    Manifest,
    Normalization,
    Precision,
    TensorRecord,
    TrainingRecord,
)
from training.card import PICTURES, card
from training.config import TrainConfig
from training.data import Dataset, to_unit_range
from training.datasets import FOLDER
from training.families.family import Learner
from training.files import remove_partial, write_atomically
from training.pictures import sample_grid
from training.report import curves_png
from training.sampling import balanced, draw_latents
from training.watching import losses_of

log = logging.getLogger(__name__)

GOLDEN_ROWS = 4
DEVIATION_IMAGES = 8192
# float32 sums taken in another order, through a dozen layers; images are in [0, 1], logits around 10.
GOLDEN_TOLERANCE: dict[Capability, float] = {
    "generate": 1e-4,
    "decode": 1e-4,
    "encode": 1e-3,
    "discriminate": 1e-3,
    "prior": 1e-4,
}


class ArchiveDamaged(Exception):
    """An archive is not the one that its manifest names."""


class ExportMismatch(Exception):
    """The reloaded archive does not compute what the trained network computes."""


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
    in one process. It is scripted, reloaded and compared with the textbook form first; its
    quality is measured after. A bfloat16 archive ships where its images are within PIXEL_BOUND of those of the float32
    one. Replacing the manifest is the switch.
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
    largest, mean = deviation(archive, lower, learner, len(dataset.classes), config.seed)
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


def load_archive(directory: Path, archive: Archive) -> nn.Module:
    """The network in an archive of a checkpoint, on the CPU. Raises ArchiveDamaged before it opens another file."""
    path = directory / archive.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != archive.digest:
        raise ArchiveDamaged(f"{path} has SHA-256 {digest}, its manifest says {archive.digest}")
    return _opened(content)


def refuse_diverged(learner: Learner) -> None:
    """Raises ExportMismatch where a weight is not a finite number."""
    for name, weight in learner.state_dict().items():
        if not torch.isfinite(weight).all():
            raise ExportMismatch(f"the run has diverged: {name} holds a value that is not a number")


def described(name: str, content: bytes, deviation: Deviation | None = None) -> Archive:
    """What the manifest says of an archive; its file's name holds its digest."""
    digest = hashlib.sha256(content).hexdigest()
    return Archive(file=f"{name}-{digest[:12]}.pt", digest=digest, bytes=len(content), deviation=deviation)


@torch.no_grad()
def deviation(reference: Any, lower: Any, learner: Learner, classes: int, seed: int) -> tuple[float, float]:
    """The largest and the mean difference of pixels between two archives, over DEVIATION_IMAGES images.

    Of latents of the default prior, all classes in turn. Both are NaN when a pixel is.
    """
    largest, total = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    wanted = balanced(DEVIATION_IMAGES, classes)
    latents = draw_latents(reference, learner, wanted, seed)
    for rows, labels in zip(torch.split(latents, 64), torch.split(wanted, 64), strict=True):
        inputs = (rows, labels) if learner.conditional else (rows,)
        difference = (lower.generate(*inputs) - reference.generate(*inputs)).abs()
        largest = torch.maximum(largest, difference.max())
        total += difference.mean(dim=(1, 2, 3), dtype=torch.float64).sum()
    return float(largest), float(total / DEVIATION_IMAGES)


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


def script(module: nn.Module) -> tuple[bytes, nn.Module]:
    """The module as the bytes of a TorchScript archive, and the network those bytes give back.

    Saved to memory first: saving straight to a full disk aborts the process.
    """
    with _deprecated_on_purpose():
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue(), _opened(buffer.getvalue())


def _opened(content: bytes) -> nn.Module:
    with _deprecated_on_purpose():
        archive: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    return archive.eval()


@contextmanager
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=category)
        yield


@torch.no_grad()
def golden_cases(eager: nn.Module, archive: nn.Module, learner: Learner, dataset: Dataset) -> dict[Capability, Golden]:
    """A few rows through each capability the archive has. Raises ExportMismatch where eager differs."""
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(GOLDEN_ROWS, learner.latent_dim, generator=source)
    noise = torch.randn(GOLDEN_ROWS, learner.noise_dim, generator=source)
    drawn = torch.arange(GOLDEN_ROWS) % len(dataset.classes)
    images, depicted = to_unit_range(dataset.test_images[:GOLDEN_ROWS]), dataset.test_labels[:GOLDEN_ROWS]
    rows: dict[Capability, tuple[Tensor, Tensor]] = {
        "generate": (latents, drawn),
        "decode": (latents, drawn),
        "encode": (images, depicted),
        "discriminate": (images, depicted),
        "prior": (noise, drawn),
    }
    cases: dict[Capability, Golden] = {}
    for capability, labelled in rows.items():
        if not hasattr(archive, capability):
            continue
        inputs = labelled if learner.conditional or capability == "prior" else labelled[:1]
        outputs = as_tuple(getattr(archive, capability)(*inputs))
        expected = as_tuple(getattr(eager, capability)(*inputs))
        tolerance = GOLDEN_TOLERANCE[capability]
        differences = [(a - b).abs().max() for a, b in zip(outputs, expected, strict=True)]
        difference = float(torch.stack(differences).max())  # Python's max would let a NaN pass
        if not difference <= tolerance:
            raise ExportMismatch(f"{capability} differs by {difference} after reloading, bound {tolerance}")
        cases[capability] = Golden(
            inputs=tuple(TensorRecord.of(rows.numpy()) for rows in inputs),
            outputs=tuple(TensorRecord.of(output.numpy()) for output in outputs),
            tolerance=tolerance,
        )
    return cases


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a capability gave, always as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


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

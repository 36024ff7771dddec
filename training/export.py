"""From a trained run to a checkpoint in `models/`. The one place in training that names TorchScript.

TorchScript is deprecated upstream in favour of `torch.export`; the manifest's `format` is where a
successor will show.
"""

import hashlib
import io
import platform
import subprocess
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from app.checkpoints.manifest import (
    Archive,
    Capability,
    DatasetUsed,
    Golden,
    ImageForm,
    Manifest,
    Normalization,
    TensorRecord,
    TrainingRecord,
)
from training import report
from training.config import TrainConfig
from training.data import Dataset, to_unit_range
from training.evaluation.held_out import evaluate
from training.families.family import Learner
from training.files import write_atomically

GOLDEN_ROWS = 4
# float32 sums taken in another order, through a dozen layers; images are in [0, 1], logits around 10.
GOLDEN_TOLERANCE: dict[Capability, float] = {
    "generate": 1e-4,
    "decode": 1e-4,
    "encode": 1e-3,
    "discriminate": 1e-3,
}


class ExportMismatch(Exception):
    """The reloaded archive does not compute what the trained network computes."""


def export(config: TrainConfig, learner: Learner, dataset: Dataset, history: list[dict[str, float]]) -> Path:
    """Write `models_dir/name`: the archive, its manifest, a card and samples. Gives the directory.

    The archive is scripted, reloaded and compared with the eager network first; its quality is
    measured on the reloaded form, which is the one that ships. Replacing the manifest is the switch.
    Raises ExportMismatch, and OSError on a full disk: until the switch the previous checkpoint is
    untouched, from then on the new one is whole and only its card or its samples may be old.
    """
    eager = learner.archive().cpu().to(memory_format=torch.contiguous_format).eval()
    content, archive = script(eager)
    golden = golden_cases(eager, archive, learner.latent_dim, dataset)
    digest = hashlib.sha256(content).hexdigest()
    file = f"{config.name}-{digest[:12]}.pt"
    manifest = Manifest(
        name=config.name,
        family=config.family,
        capabilities=tuple(golden),
        latent_dim=learner.latent_dim,
        image=ImageForm(shape=(1, 28, 28), normalization=Normalization(box=20)),
        classes=tuple(str(digit) for digit in range(10)),
        archives={"float32": Archive(file=file, digest=digest, bytes=len(content))},
        dataset=DatasetUsed(
            name=dataset.name,
            digest=dataset.digest,
            train_images=len(dataset.train_images[: config.train_images]),
        ),
        training=training_record(config, eager, history),
        quality=evaluate(archive, tuple(golden), learner.latent_dim, dataset, config.seed),
        golden=golden,
    )
    directory = config.models_dir / config.name
    samples = report.sample_grid(archive, learner.latent_dim, config.seed)
    write_atomically(directory / file, content)
    write_atomically(directory / "manifest.json", manifest.model_dump_json(indent=2).encode() + b"\n")
    write_atomically(directory / "samples.png", samples)
    write_atomically(directory / "card.md", report.card(manifest).encode())
    for old in directory.glob("*.pt"):
        if old.name != file:
            old.unlink()
    return directory


def training_record(config: TrainConfig, eager: nn.Module, history: list[dict[str, float]]) -> TrainingRecord:
    """What it takes to train the same again, and what came of it."""
    return TrainingRecord(
        config=portable(config),
        seed=config.seed,
        epochs=len(history),
        parameters={name: count_parameters(part) for name, part in eager.named_children()},
        losses={name: value for name, value in history[-1].items() if name != "epoch"},
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        source_commit=source_commit(),
    )


def script(module: nn.Module) -> tuple[bytes, nn.Module]:
    """The module as the bytes of a TorchScript archive, and the network those bytes give back.

    Saved to memory first: saving straight to a full disk aborts the process.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=category)
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(module), buffer)
        content = buffer.getvalue()
        archive: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
        return content, archive.eval()


@torch.no_grad()
def golden_cases(eager: nn.Module, archive: nn.Module, latent_dim: int, dataset: Dataset) -> dict[Capability, Golden]:
    """A few rows through each capability the archive has. Raises ExportMismatch where eager differs."""
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(GOLDEN_ROWS, latent_dim, generator=source)
    images = to_unit_range(dataset.test_images[:GOLDEN_ROWS])
    inputs: dict[Capability, Tensor] = {
        "generate": latents,
        "decode": latents,
        "encode": images,
        "discriminate": images,
    }
    cases: dict[Capability, Golden] = {}
    for capability, rows in inputs.items():
        if not hasattr(archive, capability):
            continue
        outputs = as_tuple(getattr(archive, capability)(rows))
        expected = as_tuple(getattr(eager, capability)(rows))
        tolerance = GOLDEN_TOLERANCE[capability]
        differences = [(a - b).abs().max() for a, b in zip(outputs, expected, strict=True)]
        difference = float(torch.stack(differences).max())  # Python's max would let a NaN pass
        if not difference <= tolerance:
            raise ExportMismatch(f"{capability} differs by {difference} after reloading, bound {tolerance}")
        cases[capability] = Golden(
            inputs=(TensorRecord.of(rows.numpy()),),
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
    return config.model_dump(mode="json", exclude={"data_dir", "runs_dir", "models_dir"})


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

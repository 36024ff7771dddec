"""Whether an archive computes what the trained network computes. Knows no files."""

from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.manifest import Golden, TensorRecord
from training.data import Dataset, to_unit_range
from training.families.family import Learner
from training.sampling import balanced, draw_latents

GOLDEN_ROWS = 4
# float32 sums taken in another order, through a dozen layers; images are in [0, 1], logits around 10.
GOLDEN_TOLERANCE: dict[Capability, float] = {
    "generate": 1e-4,
    "decode": 1e-4,
    "encode": 1e-3,
    "discriminate": 1e-3,
    "prior": 1e-4,
}


class ExportMismatch(Exception):
    """The reloaded archive does not compute what the trained network computes."""


def refuse_diverged(learner: Learner) -> None:
    """Raises ExportMismatch where a weight is not a finite number."""
    for name, weight in learner.state_dict().items():
        if not torch.isfinite(weight).all():
            raise ExportMismatch(f"the run has diverged: {name} holds a value that is not a number")


@torch.no_grad()
def deviation(
    reference: Any, lower: Any, learner: Learner, classes: int, seed: int, images: int
) -> tuple[float, float]:
    """The largest and the mean difference of pixels between two archives, over so many images.

    Of latents of the default prior, all classes in turn. Both are NaN when a pixel is.
    """
    largest, total = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    wanted = balanced(images, classes)
    latents = draw_latents(reference, learner, wanted, seed)
    for rows, labels in zip(torch.split(latents, 64), torch.split(wanted, 64), strict=True):
        inputs = (rows, labels) if learner.conditional else (rows,)
        difference = (lower.generate(*inputs) - reference.generate(*inputs)).abs()
        largest = torch.maximum(largest, difference.max())
        total += difference.mean(dim=(1, 2, 3), dtype=torch.float64).sum()
    return float(largest), float(total / images)


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

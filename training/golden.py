"""Golden rows of an archive, and the agreement of archives: with the trained network and between precisions.

When the service loads a checkpoint, `app.inference.checks` computes the golden rows again.
"""

from typing import Any

import torch
from torch import Tensor

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import PIXEL_BOUND, Golden, TensorRecord
from training.archive import EagerArchive
from training.data import Dataset, batches
from training.evaluation.resizing import resized
from training.generation import balanced_labels, draw_latents
from training.learner import Learner

GOLDEN_ROWS = 4
BATCH = 64


class ExportMismatch(Exception):
    """The archive does not compute what the trained network computes."""


@torch.no_grad()
def golden_rows(eager: EagerArchive, archive: Any, learner: Learner, dataset: Dataset) -> dict[str, Golden]:
    """Inputs and outputs of each capability. Raises ExportMismatch where `archive` differs from `eager`."""
    golden = {}
    for capability, network in eager.networks.items():
        inputs = input_rows(learner, dataset, capability, GOLDEN_ROWS)
        outputs = as_tuple(getattr(archive, capability)(*inputs))
        tolerance = CAPABILITIES[capability].tolerance
        pairs = zip(outputs, as_tuple(network(*inputs)), strict=True)
        difference = float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())  # max() of Python drops NaN
        if not difference <= tolerance:
            raise ExportMismatch(
                f"{capability} of the archive differs by {difference} from the trained network; {tolerance} is allowed"
            )
        golden[capability] = Golden(
            inputs=tuple(TensorRecord.of(rows.numpy()) for rows in inputs),
            outputs=tuple(TensorRecord.of(rows.numpy()) for rows in outputs),
            tolerance=tolerance,
        )
    return golden


@torch.no_grad()
def deviation(
    reference: Any, lower: Any, learner: Learner, dataset: Dataset, capability: str, count: int, seed: int
) -> tuple[float, float]:
    """The largest and the mean difference of pixels between two archives, over `count` images of a capability.

    Latents are drawn from the default prior, for balanced labels. Both are NaN where a pixel is. The comparison ends
    with the first batch beyond PIXEL_BOUND, because bfloat16 is slow on a processor without instructions for it.
    """
    largest, means = torch.zeros(()), []
    inputs = input_rows(learner, dataset, capability, count)
    if learner.inputs(capability)[0] is Symbol.LATENT:
        inputs = (draw_latents(reference, learner, balanced_labels(count, len(dataset.classes)), seed), *inputs[1:])
    for rows in batches(BATCH, *inputs):
        difference = (getattr(lower, capability)(*rows) - getattr(reference, capability)(*rows)).abs()
        largest = torch.maximum(largest, difference.max())
        means.append(difference.mean(dim=(1, 2, 3), dtype=torch.float64))
        if not largest <= PIXEL_BOUND:
            break
    return float(largest), float(torch.cat(means).mean())


def input_rows(learner: Learner, dataset: Dataset, capability: str, count: int) -> tuple[Tensor, ...]:
    """`count` rows of each input of a capability.

    Latents and noise are standard normal. Images are test images with their labels; without images, labels are
    balanced.
    """
    source = torch.Generator().manual_seed(0)
    rows = torch.arange(count) % len(dataset.test_images)
    symbols = learner.inputs(capability)
    inputs = []
    for symbol in symbols:
        match symbol:
            case Symbol.LATENT | Symbol.NOISE:
                width = learner.latent_dim if symbol is Symbol.LATENT else learner.noise_dim
                assert width is not None, f"{capability} needs latents"
                inputs.append(torch.randn(count, width, generator=source))
            case Symbol.IMAGE:
                inputs.append(resized(dataset.test_images[rows], learner.image_shape))
            case Symbol.INPUT_IMAGE:
                inputs.append(resized(dataset.test_images[rows], learner.input_shape))
            case Symbol.LABEL:
                of_images = {Symbol.IMAGE, Symbol.INPUT_IMAGE} & set(symbols)
                inputs.append(dataset.test_labels[rows] if of_images else balanced_labels(count, len(dataset.classes)))
            case _:
                raise ValueError(f"no golden rows are known for the input {symbol.name} of {capability}")
    return tuple(inputs)


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs of a capability, always as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)

"""What a model's rows may pass: its networks, and a fitted prior with the generator after it. Knows no queue."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from app.checkpoints.manifest import Capability
from app.checkpoints.store import Model
from app.inference.runtime import Inputs, Labelled, Network, Outputs

Stage = Capability | Literal["sample"]
Compute = Callable[[Sequence[Inputs]], list[Outputs]]


def stages(model: Model) -> Mapping[Stage, Compute]:
    """What computes for each stage of a model."""
    found: dict[Stage, Compute] = {capability: network.compute for capability, network in model.networks.items()}
    if {"prior", "generate"} <= set(model.networks):
        found["sample"] = sampler(model.networks["prior"], model.networks["generate"], model.manifest.conditional)
    return found


def sampler(prior: Network, generator: Network, conditional: bool) -> Compute:
    """Noise with labels to images and the latents between, without a wait for a second worker."""

    def sample(chunks: Sequence[Inputs]) -> list[Outputs]:
        drawn = [latents for (latents,) in prior.compute(chunks)]
        inputs: list[Inputs] = [*drawn]
        if conditional:
            inputs = [Labelled(rows, chunk.labels) for rows, chunk in zip(drawn, chunks, strict=True)]  # type: ignore[union-attr]
        images = generator.compute(inputs)
        return [(made, rows) for (made,), rows in zip(images, drawn, strict=True)]

    return sample

"""What a model's rows may pass: its networks, and two of them one after the other. Knows no queue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.store import Model
from app.inference.runtime import Inputs, Labelled, Network, Outputs, Rows

Stage = Capability | Literal["sample", "reconstruct"]

# Probabilities of a pixel have logarithms down to here, as `torch.nn.BCELoss` has it.
LEAST_LOGARITHM = -100.0


@dataclass(frozen=True, slots=True)
class Uploads:
    """Images `(n, 1, height, width)` in [0, 1], and what is drawn of their posteriors: the means without `noise`."""

    images: Inputs
    noise: Rows | None = None  # (n, latent), of the standard normal

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "Uploads":
        return Uploads(self.images[rows], None if self.noise is None else self.noise[rows])

    def decoding(self, mean: Rows, log_variance: Rows) -> Inputs:
        """What a decoder takes of these posteriors."""
        latents = mean if self.noise is None else mean + np.exp(0.5 * log_variance) * self.noise
        return Labelled(latents, self.images.labels) if isinstance(self.images, Labelled) else latents

    @property
    def rows(self) -> Rows:
        """The images alone."""
        return self.images.rows if isinstance(self.images, Labelled) else self.images


StageInputs = Inputs | Uploads
Compute = Callable[[Sequence[StageInputs]], list[Outputs]]


def stages(model: Model) -> Mapping[Stage, Compute]:
    """What computes for each stage of a model."""
    found: dict[Stage, Compute] = {
        capability: network.compute  # type: ignore[misc] # which is given what its capability takes
        for capability, network in model.networks.items()
    }
    if {"prior", "generate"} <= set(model.networks):
        found["sample"] = sampler(model.networks["prior"], model.networks["generate"], model.manifest.conditional)
    if {"encode", "decode"} <= set(model.networks):
        found["reconstruct"] = reconstructor(model.networks["encode"], model.networks["decode"])
    return found


def reconstructor(encoder: Network, decoder: Network) -> Compute:
    """Uploads to reconstructions, posteriors and errors, without a wait for a second worker.

    Outputs: `(n, 1, height, width)` in [0, 1], means `(n, latent)`, log variances `(n, latent)`, and `(n, 3)` float64
    as `reconstruction_errors` gives them.
    """

    def reconstruct(chunks: Sequence[Uploads]) -> list[Outputs]:
        posteriors = encoder.compute([chunk.images for chunk in chunks])
        given = [chunk.decoding(*posterior) for chunk, posterior in zip(chunks, posteriors, strict=True)]
        outputs = [
            (*decoded, *posterior) for decoded, posterior in zip(decoder.compute(given), posteriors, strict=True)
        ]
        # Of all rows at once: a call of NumPy costs more than a row.
        images = np.concatenate([chunk.rows for chunk in chunks])
        errors = reconstruction_errors(images, *(np.concatenate(parts) for parts in zip(*outputs, strict=True)))
        ends = np.cumsum([len(chunk) for chunk in chunks])[:-1]
        parts = np.split(errors, ends)
        return [(*each, part) for each, part in zip(outputs, parts, strict=True)]  # type: ignore[arg-type] # float64

    return reconstruct  # type: ignore[return-value] # it is given uploads alone


def reconstruction_errors(images: Rows, decoded: Rows, mean: Rows, log_variance: Rows) -> NDArray[np.float64]:
    """Binary cross-entropy summed over pixels (nats), mean squared error a pixel, KL divergence (nats): `(n, 3)`.

    Shapes: `(n, 1, height, width)` in [0, 1] twice, `(n, latent)` twice. The sum of the first and the last
    is the negative ELBO of one sample. Source: arXiv:1312.6114, section 3 and appendix B.
    """
    x, y = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (images, decoded))
    with np.errstate(divide="ignore"):  # of a pixel that is surely black, or surely white
        ink, ground = (np.maximum(np.log(share), LEAST_LOGARITHM) for share in (y, 1 - y))
    m, v = mean.astype(np.float64), log_variance.astype(np.float64)
    bce = -(x * ink + (1 - x) * ground).sum(axis=1)
    mse = np.square(y - x).mean(axis=1)
    kl = -0.5 * (1 + v - m**2 - np.exp(v)).sum(axis=1)
    return np.stack([bce, mse, kl], axis=1)


def sampler(prior: Network, generator: Network, conditional: bool) -> Compute:
    """Noise with labels to images and the latents between, without a wait for a second worker."""

    def sample(chunks: Sequence[Inputs]) -> list[Outputs]:
        drawn = [latents for (latents,) in prior.compute(chunks)]
        inputs: list[Inputs] = [*drawn]
        if conditional:
            inputs = [Labelled(rows, chunk.labels) for rows, chunk in zip(drawn, chunks, strict=True)]  # type: ignore[union-attr]
        images = generator.compute(inputs)
        return [(made, rows) for (made,), rows in zip(images, drawn, strict=True)]

    return sample  # type: ignore[return-value] # it is given noise alone

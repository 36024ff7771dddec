"""Generated images for figures and previews: seed, labels, prior, temperature and truncation.

The rows of a seed are drawn together, so that image i depends on the number of images. (The service draws each row
separately.)
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Prior
from training.data import batches

BATCH = 250


class NotANumber(ValueError):
    """A generated image has pixels that are NaN."""


class Form(Protocol):
    """What both a manifest and a learner say about inputs and labels."""

    @property
    def latent_dim(self) -> int | None: ...  # noqa: D102
    @property
    def noise_dim(self) -> int | None: ...  # noqa: D102
    @property
    def input_shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def conditional(self) -> bool: ...  # noqa: D102
    @property
    def priors(self) -> tuple[Prior, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Controls:
    """How latents are drawn. The default is the default prior of the model.

    `temperature` scales the normal numbers of a latent. `truncation` t draws them from the normal distribution
    truncated to [-t, t].
    """

    prior: Prior | None = None
    temperature: float = 1.0
    truncation: float | None = None


PLAIN = Controls()


def balanced_labels(count: int, classes: int) -> Tensor:
    """Labels int64 `(count,)`: image i has i mod classes. All are 0 for unlabelled data."""
    return torch.arange(count) % max(classes, 1)


def gives_labels(form: Form, controls: Controls = PLAIN) -> bool:
    """Whether images drawn in this way have the requested labels: of a conditional model, or from a fitted prior."""
    return form.conditional or _prior(form, controls) == "fitted"


def with_labels(form: Form, rows: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The inputs of a network of the model: rows, and their labels where it is conditional."""
    return (rows, labels) if form.conditional else (rows,)


def draw_images(network: nn.Module, form: Form, labels: Tensor, seed: int, controls: Controls = PLAIN) -> Tensor:
    """One image for each label, uint8 `(N, 1, H, W)` on the CPU, quantised as by the service.

    A network without labels ignores them. PyTorch's global random state is neither used nor changed. Raises NotANumber
    for NaN, and ValueError for a prior that the model lacks.
    """
    return generate(network, form, draw_latents(network, form, labels, seed, controls), labels)


@torch.no_grad()
def generate(network: nn.Module, form: Form, latents: Tensor, labels: Tensor) -> Tensor:
    """Latents float32 `(N, latent_dim)` and labels int64 `(N,)` to images, in the form that `draw_images` returns."""
    device = next(network.parameters()).device
    images = []
    for rows, wanted in batches(BATCH, latents, labels):
        made = network.generate(*with_labels(form, rows.to(device), wanted.to(device)))  # type: ignore[operator]
        images.append(quantised(made).cpu())
    return torch.cat(images)


@torch.no_grad()
def draw_latents(network: nn.Module, form: Form, labels: Tensor, seed: int, controls: Controls = PLAIN) -> Tensor:
    """One latent for each label, float32 `(N, latent_dim)` on the CPU. Raises ValueError as `draw_images`."""
    prior = _prior(form, controls)
    if prior not in form.priors:
        raise ValueError(f"the model's latents are drawn from {' or '.join(form.priors)}, not {prior}")
    assert form.latent_dim is not None, "needs a model with latents"
    assert form.noise_dim is not None
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(len(labels), form.latent_dim, generator=source)
    if controls.truncation is not None:
        normal = truncated(normal, controls.truncation)
    normal = normal * controls.temperature
    if prior == "normal":
        return normal
    # The last column selects the component of the mixture.
    noise = torch.cat([normal, torch.randn(len(labels), form.noise_dim - form.latent_dim, generator=source)], dim=1)
    device = next(network.parameters()).device
    drawn = [
        network.prior(rows.to(device), wanted.to(device)).cpu()  # type: ignore[operator]
        for rows, wanted in batches(BATCH, noise, labels)
    ]
    return torch.cat(drawn)


def truncated(normal: Tensor, bound: float) -> Tensor:
    """Standard normal numbers to numbers of the normal distribution truncated to [-bound, bound], rank by rank.

    Source: A. Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", 2018,
    arXiv:1809.11096, section 3.1, with the inverse of the distribution function in place of redrawing.
    """
    low, high = torch.special.ndtr(torch.tensor([-bound, bound], dtype=torch.float64))
    cut: Tensor = torch.special.ndtri(low + torch.special.ndtr(normal.double()) * (high - low))
    return cut.to(normal.dtype)


def quantised(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8, halves rounded up. Raises NotANumber for NaN."""
    if images.isnan().any():
        raise NotANumber("a generated image has pixels that are not numbers")
    return (images.float().clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)


def _prior(form: Form, controls: Controls) -> Prior:
    return form.priors[0] if controls.prior is None else controls.prior

"""Normalizing flow: an invertible network between images and standard normal latents, trained by maximum likelihood.

Sources: L. Dinh et al., "Density estimation using Real NVP", 2016, arXiv:1605.08803 (affine couplings, squeezing,
factoring out, the logits of pixels); D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1
Convolutions", 2018, arXiv:1807.03039 (activation normalisation, 1x1 convolutions); J. Ho et al., "Flow++: Improving
Flow-Based Generative Models with Variational Dequantization and Architecture Design", 2019, arXiv:1902.00275
(dequantisation).
"""

import copy
import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from app.checkpoints.manifest import Figure
from training import schedules
from training.archive import Networks
from training.average import Average
from training.config import EVALUATE_EVERY, NAME_PATTERN, TrainConfig
from training.data import Dataset, batches, to_unit_range
from training.families import Family
from training.learner import DataShape, GradientLearner, TrainingSet

LEVELS = 256  # grey levels of a pixel
# Pixels are moved into [MARGIN, 1 - MARGIN] before their logits are taken. With the usual 0.05 the flow would have to
# learn where black ends, and backgrounds are grey.
MARGIN = 1e-6
# Bound of a coupling's log-scales, so that neither direction overflows.
MAX_LOG_SCALE = 2.0
WARM_UP_STEPS = 200
MAX_GRADIENT_NORM = 1.0
ROWS = 500  # of a batch without gradients


class FlowConfig(TrainConfig):
    """A normalizing flow that takes the label."""

    family: Literal["flow"] = "flow"
    name: str = Field("flow", pattern=NAME_PATTERN)
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(64, ge=2)
    evaluate_every: int = Field(0, ge=0, description=EVALUATE_EVERY)
    learning_rate: float = Field(2e-3, gt=0, description="after the warm-up; it falls to 0 along a cosine")
    depth: int = Field(8, ge=1, description="steps of the flow in each of its three levels")
    width: int = Field(64, ge=1, description="hidden channels at half the side of the image; twice at a quarter")


class CouplingNetwork(nn.Module):
    """Shifts and log-scales for some channels from other channels, the label and the position."""

    def __init__(self, inputs: int, outputs: int, width: int, height: int, length: int, classes: int) -> None:
        """`height` and `length` are the size of the feature maps, `width` is the number of hidden channels."""
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, width, height, length))
        self.label = nn.Embedding(classes, width)
        self.second = nn.Conv2d(width, width, 1)
        self.last = nn.Conv2d(width, 2 * outputs, 3, padding=1)
        # At first every coupling is the identity.
        nn.init.zeros_(self.label.weight)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.bound = MAX_LOG_SCALE

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, inputs, H, W)` and labels int64 `(B,)` to shifts and log-scales, both `(B, outputs, H, W)`."""
        hidden = self.first(x)
        hidden = hidden + self.position.to(hidden.dtype) + self.label(labels)[:, :, None, None].to(hidden.dtype)
        hidden = functional.relu(self.second(functional.relu(hidden)))
        shifts, log_scales = self.last(hidden).to(x.dtype).chunk(2, dim=1)
        return shifts, self.bound * torch.tanh(log_scales / self.bound)


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution `(B, C, H, W)` by a matrix `(C, C)` and a bias `(C,)`.

    It is a batched matrix product, since the results of a convolution with few channels depend on the batch size.
    """
    mixed = torch.bmm(matrix.expand(x.shape[0], -1, -1), x.flatten(2)) + bias[:, None]
    return mixed.view(x.shape)


class Mixing(nn.Module):
    """Activation normalisation, then an invertible 1x1 convolution: `(B, C, H, W)` to the same shape.

    The matrix is P L (U + diag(s)), eq. 10 of arXiv:1807.03039, whose determinant is, up to its sign, the product
    of s. The learned scales of the normalisation would be redundant beside s, so that only its statistics remain: those
    of the first batch in training. They are buffers, which the processes of a run average as they do for batch
    normalisation.
    """

    permutation: Tensor
    signs: Tensor
    mean: Tensor
    deviation: Tensor
    batches: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))  # that the statistics are of: 0 or 1

    def affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both layers as an affine map of a pixel's channels: matrix `(C, C)`, bias `(C,)` and log-determinant `()`."""
        lower = self.lower.tril(-1) + torch.eye(len(self.bias)).to(self.lower)
        upper = self.upper.triu(1) + torch.diag(self.signs * self.log_diagonal.exp())
        matrix = self.permutation @ lower @ upper / self.deviation
        return matrix, self.bias - matrix @ self.mean, self.log_diagonal.sum() - self.deviation.log().sum()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, C, H, W)` to the same shape, and the log-determinant `()` over all pixels.

        It computes in the precision of `x` also under autocast, since rounding errors would add up over the steps.
        """
        if self.training and self.batches == 0:
            with torch.no_grad():
                self.mean.copy_(x.mean(dim=(0, 2, 3)))
                self.deviation.copy_(x.std(dim=(0, 2, 3)) + 1e-3)
                self.batches += 1
        with torch.autocast(x.device.type, enabled=False):
            matrix, bias, log_determinant = self.affine()
            mixed = pointwise(x, matrix, bias)
        return mixed, log_determinant * (x.shape[2] * x.shape[3])


class FoldedMixing(nn.Module):
    """A `Mixing` with its matrix multiplied out, for archives."""

    log_determinant: Tensor

    def __init__(self, mixing: Mixing) -> None:
        super().__init__()
        matrix, bias, log_determinant = mixing.affine()
        self.matrix, self.bias = nn.Parameter(matrix.detach()), nn.Parameter(bias.detach())
        self.register_buffer("log_determinant", log_determinant.detach())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Mixing`."""
        return pointwise(x, self.matrix, self.bias), self.log_determinant * (x.shape[2] * x.shape[3])


class Step(nn.Module):
    """One step of the flow: channels are mixed, and an affine coupling changes one half by the other half."""

    def __init__(self, mixing: nn.Module, network: CouplingNetwork) -> None:
        super().__init__()
        self.mixing = mixing
        self.network = network

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, C, H, W)` to the same shape, and the log-determinants `(B,)`. Eq. 4 and 5 of arXiv:1605.08803."""
        mixed, log_determinant = self.mixing(x)
        kept, changed = mixed.chunk(2, dim=1)
        shifts, log_scales = self.network(kept, labels)
        changed = changed * torch.exp(log_scales) + shifts
        return torch.cat([kept, changed], dim=1), log_determinant + log_scales.sum(dim=(1, 2, 3))


class Level(nn.Module):
    """Steps of the flow on feature maps of one size."""

    def __init__(self, channels: int, height: int, length: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        half = channels // 2
        self.steps = nn.ModuleList(
            Step(Mixing(channels), CouplingNetwork(half, half, width, height, length, classes)) for _ in range(depth)
        )

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, channels, height, length)` to the same shape, and the log-determinants `(B,)`."""
        log_determinants = torch.zeros_like(x[:, 0, 0, 0])
        for step in self.steps:
            x, log_determinant = step(x, labels)
            log_determinants = log_determinants + log_determinant
        return x, log_determinants


class InverseStep(nn.Module):
    """The inverse of a `Step`, for archives."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        assert isinstance(step.mixing, Mixing)
        matrix, bias, _ = step.mixing.affine()
        inverse = torch.linalg.inv(matrix.detach().double())
        self.matrix = nn.Parameter(inverse.to(matrix.dtype))
        self.bias = nn.Parameter((-inverse @ bias.detach().double()).to(matrix.dtype))
        self.network = step.network

    def forward(self, y: Tensor, labels: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        kept, changed = y.chunk(2, dim=1)
        shifts, log_scales = self.network(kept, labels)
        mixed = torch.cat([kept, (changed - shifts) * torch.exp(-log_scales)], dim=1)
        return pointwise(mixed, self.matrix, self.bias)


class InverseLevel(nn.Module):
    """The inverse of a `Level`, for archives."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.steps = nn.ModuleList(InverseStep(step) for step in reversed(list(level.steps)))  # type: ignore[arg-type]

    def forward(self, y: Tensor, labels: Tensor) -> Tensor:
        """As `Level`, without determinants."""
        for step in self.steps:
            y = step(y, labels)
        return y


class Flow(nn.Module):
    """Logits of pixels to latents.

    The image is squeezed to 4 channels of half its side and, after the fine level, to 16 channels of a quarter. After
    the coarse level, half of the channels are factored out: they become latents, shifted and scaled by a network of the
    other half. The other half passes the last level and is shifted and scaled by the label.
    """

    def __init__(self, data: DataShape, depth: int, width: int) -> None:
        """Raises ValueError for images whose sides are not multiples of 4."""
        super().__init__()
        _, height, length = data.image
        if height % 4 or length % 4:
            raise ValueError(f"a flow halves the sides of images twice: {height}x{length} pixels are no multiples of 4")
        self.fine = Level(4, height // 2, length // 2, data.classes, width, depth)
        self.coarse = Level(16, height // 4, length // 4, data.classes, 2 * width, depth)
        self.factor = CouplingNetwork(8, 8, 2 * width, height // 4, length // 4, data.classes)
        self.last = Level(8, height // 4, length // 4, data.classes, 2 * width, depth)
        # Shifts and log-scales of the last latents.
        self.prior = nn.Embedding(data.classes, height * length)
        nn.init.zeros_(self.prior.weight)

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, 1, H, W)`, labels int64 `(B,)` to latents `(B, H W)` and log-determinants `(B,)`."""
        x, log_determinants = self.fine(functional.pixel_unshuffle(logits, 2), labels)
        x, log_coarse = self.coarse(functional.pixel_unshuffle(x, 2), labels)
        x, factored = x.chunk(2, dim=1)
        shifts, log_scales = self.factor(x, labels)
        factored = factored * torch.exp(log_scales) + shifts
        log_determinants = log_determinants + log_coarse + log_scales.sum(dim=(1, 2, 3))
        x, log_last = self.last(x, labels)
        shifts, log_scales = self.prior(labels).chunk(2, dim=1)
        last = x.flatten(1) * torch.exp(log_scales) + shifts
        return torch.cat([factored.flatten(1), last], dim=1), log_determinants + log_last + log_scales.sum(dim=1)


class InverseFlow(nn.Module):
    """The inverse of a `Flow`, for archives; it shares the coupling networks."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.fine, self.coarse, self.last = InverseLevel(flow.fine), InverseLevel(flow.coarse), InverseLevel(flow.last)
        self.factor = flow.factor
        self.prior = flow.prior
        _, _, self.height, self.length = flow.factor.position.shape

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, H W)` and labels int64 `(B,)` to logits `(B, 1, H, W)`."""
        factored, last = latents.chunk(2, dim=1)
        shifts, log_scales = self.prior(labels).chunk(2, dim=1)
        x = ((last - shifts) * torch.exp(-log_scales)).view(-1, 8, self.height, self.length)
        x = self.last(x, labels)
        shifts, log_scales = self.factor(x, labels)
        factored = (factored.view_as(shifts) - shifts) * torch.exp(-log_scales)
        x = self.coarse(torch.cat([x, factored], dim=1), labels)
        x = self.fine(functional.pixel_shuffle(x, 2), labels)
        return functional.pixel_shuffle(x, 2)


class Dequantiser(nn.Module):
    """The distribution q(u|x) of the part u of a pixel below one grey level: a normal number through a sigmoid.

    Black backgrounds, which hold little information, then cost few bits. Affine couplings cannot map the density of
    uniform u to a normal one. Section 3.1 of arXiv:1902.00275.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.bound = MAX_LOG_SCALE
        self.constant = 0.5 * math.log(2 * math.pi)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Images of 8 bits `(B, 1, H, W)` in [0, 1] and standard normal noise of that shape to u and log q(u|x).

        u has the shape of the images and is in (0, 1); log q(u|x) is `(B,)`.
        """
        marks = torch.cat([images, (images > 0).to(images.dtype), (images < 1).to(images.dtype)], dim=1)
        means, log_deviations = self.last(functional.relu(self.first(marks))).to(images.dtype).chunk(2, dim=1)
        log_deviations = self.bound * torch.tanh(log_deviations / self.bound)
        logits = means + torch.exp(log_deviations) * noise
        # The density of a normal number, divided by the derivative u (1 - u) of the sigmoid.
        log_density = -0.5 * noise.square() - self.constant - log_deviations
        log_density = log_density - functional.logsigmoid(logits) - functional.logsigmoid(-logits)
        return torch.sigmoid(logits), log_density.sum(dim=(1, 2, 3))


def pixel_logits(pixels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Pixels `(B, 1, H, W)` in [0, 1] to their logits and the log-determinants `(B,)`.

    Source: section 4.1 of arXiv:1605.08803. `margin` keeps the logits finite.
    """
    inside = margin + (1 - 2 * margin) * pixels
    log_inside, log_outside = inside.log(), torch.log1p(-inside)
    log_determinants = (math.log(1 - 2 * margin) - log_inside - log_outside).sum(dim=(1, 2, 3))
    return log_inside - log_outside, log_determinants


def log_normal(latents: Tensor) -> Tensor:
    """The logarithm of the standard normal density: `(B, latent)` to `(B,)`."""
    return -0.5 * (latents.square() + math.log(2 * math.pi)).sum(dim=1)


class Density(nn.Module):
    """A lower bound on the log-likelihood of images of 8 bits."""

    def __init__(self, flow: Flow, dequantiser: Dequantiser) -> None:
        super().__init__()
        self.flow = flow
        self.dequantiser = dequantiser
        self.levels, self.margin = LEVELS, MARGIN

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1], labels int64 `(B,)`, standard normal noise like the images to nats `(B,)`.

        log p(x + u) - log q(u|x), whose mean over the noise bounds log P(x) from below: eq. 12 of arXiv:1902.00275.
        """
        fractions, log_q = self.dequantiser(images, noise)
        pixels = (images * (self.levels - 1) + fractions) / self.levels
        logits, log_determinants = pixel_logits(pixels, self.margin)
        latents, log_flow = self.flow(logits, labels)
        # From a density over [0, 1] to one over grey levels.
        log_levels = latents.shape[1] * math.log(self.levels)
        bound: Tensor = log_normal(latents) + log_flow + log_determinants - log_levels - log_q
        return bound


class Embed(nn.Module):
    """Images to latents. A grey level becomes the centre of its interval, so that decoding gives it back."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.levels, self.margin = LEVELS, MARGIN

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] and labels int64 `(B,)` to latents `(B, H W)`."""
        logits, _ = pixel_logits((images * (self.levels - 1) + 0.5) / self.levels, self.margin)
        latents: Tensor = self.flow(logits, labels)[0]
        return latents


class Generate(nn.Module):
    """Latents to images, the inverse of `Embed`."""

    def __init__(self, inverse: InverseFlow) -> None:
        super().__init__()
        self.inverse = inverse
        self.levels, self.margin = LEVELS, MARGIN

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, H W)` and labels int64 `(B,)` to images `(B, 1, H, W)` in [0, 1]."""
        pixels = (torch.sigmoid(self.inverse(latents, labels)) - self.margin) / (1 - 2 * self.margin)
        return ((pixels * self.levels - 0.5) / (self.levels - 1)).clamp(0.0, 1.0)


class LogLikelihood(nn.Module):
    """The bound of `Density` with one fixed draw of the noise, since archives have no random state."""

    noise: Tensor

    def __init__(self, density: Density, noise: Tensor) -> None:
        """`noise` is standard normal `(1, H, W)`."""
        super().__init__()
        self.density = density
        self.register_buffer("noise", noise)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1], rounded to 8 bits, and labels int64 `(B,)` to nats `(B,)`."""
        levels = self.density.levels - 1
        images = torch.round(images * levels) / levels
        bound: Tensor = self.density(images, labels, self.noise.expand_as(images))
        return bound


class FlowLearner(GradientLearner):
    """A flow that takes labels, its dequantiser, their optimiser and the moving average of both, which is exported."""

    conditional = True
    sampling = ("temperature",)

    def __init__(self, config: FlowConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config, self.data = config, data
        self.latent_dim = math.prod(data.image)
        density = Density(Flow(data, config.depth, config.width), Dequantiser())
        self.density = density.to(memory_format=torch.channels_last)
        self.average = Average(self.density, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.density.parameters(), lr=config.learning_rate)
        self.schedule = schedules.cosine(self.optimizer, total_steps, WARM_UP_STEPS)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step on images `(1, B, 1, H, W)`; the negative log-likelihood of the batch in bits a pixel."""
        noise = torch.randn(images.shape[1:], device=images.device)
        with self.autocast():
            log_likelihood = self.density(images[0], labels[0], noise)
        loss = bits_per_dimension(log_likelihood, math.prod(self.data.image)).mean()
        self.descend(loss, self.density, MAX_GRADIENT_NORM)
        return {"bits_per_dimension": loss.detach()}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """Both directions of the averaged flow, with their mixing layers folded, and the density.

        The noise of `log_likelihood` is drawn from the seed of the run by a separate generator.
        """
        density = copy.deepcopy(self.average.module).eval()
        assert isinstance(density, Density)
        flow = density.flow
        with torch.no_grad():
            generate = Generate(InverseFlow(flow))
            for step in (*flow.fine.steps, *flow.coarse.steps, *flow.last.steps):
                assert isinstance(step, Step)
                assert isinstance(step.mixing, Mixing)
                step.mixing = FoldedMixing(step.mixing)
        noise = torch.randn(self.data.image, generator=torch.Generator().manual_seed(self.config.seed))
        likelihood = LogLikelihood(density, noise.to(next(self.parameters()).device))
        return {"generate": generate, "decode": generate, "embed": Embed(flow), "log_likelihood": likelihood}

    @torch.no_grad()
    def figures(self, dataset: Dataset) -> dict[str, Figure]:
        """How well the flow inverts: the part of the test images' pixels that come back with another grey level."""
        networks = self.networks((dataset.train_images, dataset.train_labels))
        device = next(self.parameters()).device
        wrong, worst = 0, 0
        for images, labels in batches(ROWS, dataset.test_images, dataset.test_labels):
            labels = labels.to(device)  # noqa: PLW2901
            codes = networks["embed"](to_unit_range(images).to(device), labels)
            levels = (networks["decode"](codes, labels).cpu() * (LEVELS - 1)).round()
            differences = (levels - images).abs()
            wrong += int((differences > 0).sum())
            worst = max(worst, int(differences.max()))
        figure = Figure(
            value=wrong / dataset.test_images.numel(),
            unit=f"fraction of pixels, by {worst} grey levels at most",
            better="lower",
            floor=0.0,
        )
        return {"round_trip_errors": figure}


def bits_per_dimension(log_likelihood: Tensor, dimensions: int) -> Tensor:
    """Log-likelihoods in nats `(B,)` to negative log-likelihoods in bits for each of the pixels `(B,)`."""
    return -log_likelihood / (dimensions * math.log(2))


FAMILY = Family("flow", FlowConfig, FlowLearner)

"""Flow matching: a network of the velocity that carries noise to images along nearly straight lines, for each label.

Sources: Y. Lipman et al., "Flow Matching for Generative Modeling", 2022, arXiv:2210.02747; X. Liu et al., "Flow
Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2022, arXiv:2209.03003; T. Karras et
al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, arXiv:2206.00364 (scaling of inputs and
outputs); J. Ho, T. Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv:2207.12598; S. Lin et al., "Common
Diffusion Noise Schedules and Sample Steps are Flawed", 2023, arXiv:2305.08891 (rescaled guidance).
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training import schedules
from training.archive import Networks
from training.average import Average
from training.config import EVALUATE_EVERY, NAME_PATTERN, TrainConfig
from training.families import Family
from training.families.flow import WARM_UP_STEPS
from training.learner import DataShape, GradientLearner, TrainingSet

FREQUENCIES = 16  # of the features of a time
CONDITION_DIM = 128  # of the vector that describes time and label
GROUPS = 8  # of channels, for normalisation


class FlowMatchingConfig(TrainConfig):
    """A conditional flow-matching network, sampled in few steps."""

    family: Literal["flow-matching"] = "flow-matching"
    name: str = Field("flow-matching", pattern=NAME_PATTERN)
    epochs: int = Field(30, ge=1)
    evaluate_every: int = Field(10, ge=0, description=EVALUATE_EVERY)
    learning_rate: float = Field(2e-3, gt=0, description="after the warm-up; it falls to 0 along a cosine")
    width: int = Field(64, ge=GROUPS, multiple_of=GROUPS, description="channels at half the side; twice at a quarter")
    label_dropout: float = Field(0.1, ge=0, lt=1, description="share of the training images whose label is hidden")
    solver_steps: int = Field(8, ge=2, le=100, description="steps from noise to an image")
    guidance: float = Field(
        1.35, ge=1, description="weight of the velocity with the label against that without; 1: none"
    )


class Block(nn.Module):
    """A residual block whose second normalisation takes scales and shifts from time and label."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels, affine=False)
        self.modulation = nn.Linear(CONDITION_DIM, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`(B, C, H, W)` and `(B, CONDITION_DIM)` to the shape of the first."""
        hidden = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        scales, shifts = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = functional.silu(hidden * (1 + scales) + shifts)
        result: Tensor = x + self.conv2(hidden)
        return result


class VelocityNetwork(nn.Module):
    """The velocity of a noisy image at a time: blocks at half and at a quarter of the side of the image."""

    frequencies: Tensor

    def __init__(self, data: DataShape, width: int) -> None:
        """Raises ValueError for images whose sides are not multiples of 4."""
        super().__init__()
        _, height, length = data.image
        if height % 4 or length % 4:
            raise ValueError(f"the network halves sides twice: {height}x{length} pixels are no multiples of 4")
        self.register_buffer("frequencies", torch.logspace(0, 2, FREQUENCIES))
        self.time = nn.Linear(2 * FREQUENCIES, CONDITION_DIM)
        self.label = nn.Embedding(data.classes + 1, CONDITION_DIM)  # the last one: no label
        self.condition = nn.Linear(CONDITION_DIM, CONDITION_DIM)
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, width, height // 2, length // 2))
        self.before = Block(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inside = nn.ModuleList(Block(2 * width) for _ in range(3))
        self.up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.after = nn.ModuleList(Block(width) for _ in range(2))
        self.norm = nn.GroupNorm(GROUPS, width)
        self.to_velocity = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.to_velocity.weight)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noisy images `(B, 1, H, W)`, times `(B,)` in [0, 1], labels int64 `(B,)` to velocities like `x`.

        A label equal to the number of classes means: no label.

        For images and noise of unit variance, `2 t - 1` over the variance of `x` is the best linear predictor of the
        velocity; what remains of it, like the input of the network, is scaled to unit variance.
        """
        t = times[:, None, None, None]
        scale = torch.rsqrt(t.square() + (1 - t).square())
        phases = times[:, None] * self.frequencies
        condition = self.time(torch.cat([phases.sin(), phases.cos()], dim=1)) + self.label(labels)
        condition = functional.silu(self.condition(functional.silu(condition)))
        fine = self.stem(functional.pixel_unshuffle(x * scale, 2))
        fine = self.before(fine + self.position.to(fine.dtype), condition)
        coarse = self.down(fine)
        for block in self.inside:
            coarse = block(coarse, condition)
        fine = fine + self.up(coarse)
        for block in self.after:
            fine = block(fine, condition)
        remainder = self.to_velocity(functional.silu(self.norm(fine))).to(x.dtype)
        return (2 * t - 1) * scale.square() * x + scale * functional.pixel_shuffle(remainder, 2)


def on_path(noise: Tensor, images: Tensor, times: Tensor) -> Tensor:
    """The points at `times` `(B,)` on straight lines from noise at 0 to images at 1, `(B, 1, H, W)` all.

    Eq. 22 of arXiv:2210.02747 with a smallest deviation of 0. The velocity on a line is images - noise.
    """
    t = times[:, None, None, None]
    return (1 - t) * noise + t * images


def velocity_loss(velocities: Tensor, noise: Tensor, images: Tensor) -> Tensor:
    """The squared error of velocities, averaged over pixels and batch: `(B, 1, H, W)` thrice to a scalar.

    Eq. 23 of arXiv:2210.02747. Its minimum is not 0 but the variance of the lines that cross at a point.
    """
    return (velocities - (images - noise)).square().mean()


class Generate(nn.Module):
    """Noise to images: the differential equation of the velocity, solved in a fixed number of steps.

    The solver is Adams and Bashforth's of second order, which evaluates the velocity once a step: velocities are
    extrapolated from the last two. The first and the last step have only their own, as in Euler's method.
    """

    def __init__(self, network: VelocityNetwork, data: DataShape, steps: int, guidance: float) -> None:
        super().__init__()
        self.network = network
        self.classes, self.steps, self.guidance = data.classes, steps, guidance
        _, self.height, self.length = data.image

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, H W)`, standard normal, and labels int64 `(B,)` to images `(B, 1, H, W)` in [0, 1]."""
        x = latents.view(-1, 1, self.height, self.length)
        previous = torch.zeros_like(x)
        for step in range(self.steps):
            time = step / self.steps
            ends = self.ends(x, time, labels).clamp(-1.0, 1.0)  # the range of the data
            velocities = (ends - x) / (1 - time)
            change = velocities
            if 0 < step < self.steps - 1:
                change = 1.5 * velocities - 0.5 * previous
            x = x + change / self.steps
            previous = velocities
        return ((x + 1) / 2).clamp(0.0, 1.0)

    def ends(self, x: Tensor, time: float, labels: Tensor) -> Tensor:
        """The images `(B, 1, H, W)` at the ends of straight lines from noisy images of that shape, labels `(B,)`.

        With guidance w they are w times those with the label and 1 - w times those without, eq. 6 of arXiv:2207.12598,
        in which w is 1 + w. Such images have too much contrast: each one gets the mean and the deviation that its
        pixels have without guidance, as section 3.4 of arXiv:2305.08891 does with the deviation.
        """
        times = torch.full_like(x[:, 0, 0, 0], time)
        if self.guidance == 1.0:
            plain: Tensor = x + (1 - time) * self.network(x, times, labels)
            return plain
        labels = torch.cat([labels, torch.full_like(labels, self.classes)])
        velocities = self.network(torch.cat([x, x]), torch.cat([times, times]), labels)
        labelled, unlabelled = (torch.cat([x, x]) + (1 - time) * velocities).chunk(2)
        guided = unlabelled + self.guidance * (labelled - unlabelled)
        mean, deviation = mean_and_deviation(guided)
        wanted_mean, wanted_deviation = mean_and_deviation(labelled)
        rescaled: Tensor = wanted_mean + (guided - mean) * (wanted_deviation / deviation)
        return rescaled


def mean_and_deviation(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, above 0, of the pixels of each image: `(B, 1, H, W)` to `(B, 1, 1, 1)` twice."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (images - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return mean, deviation.clamp(min=1e-6)  # as one divides by it


class FlowMatchingLearner(GradientLearner):
    """A network of the velocity, its optimiser and the moving average of its weights, which is exported."""

    conditional = True

    def __init__(self, config: FlowMatchingConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config, self.data = config, data
        self.latent_dim = math.prod(data.image)
        self.network = VelocityNetwork(data, config.width).to(memory_format=torch.channels_last)
        self.average = Average(self.network, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
        self.schedule = schedules.cosine(self.optimizer, total_steps, WARM_UP_STEPS)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step on images `(1, B, 1, H, W)`; the loss of the batch."""
        pixels = 2 * images[0] - 1
        noise = torch.randn_like(pixels)
        # One time in each of B equal parts of [0, 1]: the loss depends on the time more than on the image.
        parts = torch.arange(len(pixels), device=pixels.device)
        times = (parts + torch.rand(len(pixels), device=pixels.device)) / len(pixels)
        hidden = torch.rand(len(pixels), device=pixels.device) < self.config.label_dropout
        given = labels[0].masked_fill(hidden, self.data.classes)
        with self.autocast():
            velocities = self.network(on_path(noise, pixels, times), times, given)
        loss = velocity_loss(velocities, noise, pixels)
        self.descend(loss, self.network)
        return {"velocity_error": loss.detach()}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The solver with the averaged network."""
        network = self.average.module
        assert isinstance(network, VelocityNetwork)
        return {"generate": Generate(network, self.data, self.config.solver_steps, self.config.guidance)}


FAMILY = Family("flow-matching", FlowMatchingConfig, FlowMatchingLearner)

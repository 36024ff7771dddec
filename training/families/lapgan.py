"""Laplacian pyramid of GANs: one of 7x7 images, and ones that add the details of 14x14 and 28x28 images to it.

Sources: E. Denton et al., "Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks", 2015,
arXiv:1506.05751, in the class-conditional form of section 3; P. Burt, E. Adelson, "The Laplacian Pyramid as a Compact
Image Code", 1983 (with area averages and bilinear interpolation here). The losses are in `adversarial`. Later
additions: the discriminators take the label by projection (T. Miyato, M. Koyama, arXiv:1802.05637), the gradient
penalty R1 takes the place of dropout, and the generators' weights are averaged.
"""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.config import NAME_PATTERN
from training.families import Family
from training.families.adversarial import (
    PENALISED_SHARE,
    AdversarialConfig,
    AdversarialLearner,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from training.families.conditional import LabelConditioned
from training.families.discriminators import Projection, initialize_glorot
from training.fast_layers import ToImages
from training.learner import DataShape, TrainingSet, gradient_step

SIZES = (7, 14, 28)
COARSE_LATENT, DETAIL_LATENT = 64, 32
EMBEDDING_DIM = 32
NOISE_PLANES = 4


class LapganConfig(AdversarialConfig):
    """A Laplacian pyramid of generative adversarial networks."""

    family: Literal["lapgan"] = "lapgan"
    name: str = Field("lapgan", pattern=NAME_PATTERN)
    epochs: int = Field(10, ge=1, description="one step of all generators for each batch of the data")
    batch_size: int = Field(64, ge=2)
    size: int = Field(28, description="7, 14 or 28: width of the images that the last level makes")
    gradient_penalty: float = Field(0.005, ge=0, description="gamma of R1 at 7x7 pixels; four times as much a level")
    detail_channels: int = Field(64, ge=2, description="of the generator of 14x14 images; half as many at 28x28")

    @field_validator("size")
    @classmethod
    def _known_size(cls, size: int) -> int:
        if size not in SIZES:
            raise ValueError("Input should be 7, 14 or 28")
        return size

    @classmethod
    def default_name(cls, values: dict[str, Any]) -> str:
        """`lapgan`, or `lapgan-14` or `lapgan-7` for these sizes."""
        size = str(values.get("size", 28))
        return "lapgan" if size == "28" else f"lapgan-{size}"[:64]


def down(images: Tensor) -> Tensor:
    """Images `(B, 1, H, W)` to `(B, 1, H / 2, W / 2)`: means over 2x2 pixels."""
    return functional.avg_pool2d(images, 2)


def up(images: Tensor) -> Tensor:
    """Images `(B, 1, H, W)` to `(B, 1, 2 H, 2 W)` by bilinear interpolation."""
    return functional.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)


def gaussian_pyramid(images: Tensor, size: int) -> list[Tensor]:
    """Images `(B, 1, 28, 28)` at all sizes up to `size`, the smallest first."""
    levels = [images]
    while levels[0].shape[2] > SIZES[0]:
        levels.insert(0, down(levels[0]))
    return [level for level in levels if level.shape[2] <= size]


def coarse_generator(classes: int) -> LabelConditioned:
    """Latents `(B, COARSE_LATENT)` and labels `(B,)` to pixel logits `(B, 1, 7, 7)`."""
    embedding = nn.Embedding(classes, EMBEDDING_DIM)
    layers = nn.Sequential(
        nn.Linear(COARSE_LATENT + EMBEDDING_DIM, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, SIZES[0] ** 2),
        nn.Unflatten(1, (1, SIZES[0], SIZES[0])),
    )
    return LabelConditioned(embedding, layers)


class DetailGenerator(nn.Module):
    """Latents `(B, DETAIL_LATENT)`, labels `(B,)` and enlarged images `(B, 1, S, S)` in [0, 1] to residuals.

    The residuals have the shape of the images. Latent and label become further planes beside the image: several, where
    the paper has one. Blocks of 2x2 pixels become channels, at a quarter of the cost.
    """

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        embedding = nn.Embedding(classes, EMBEDDING_DIM)
        planes = nn.Sequential(
            nn.Linear(DETAIL_LATENT + EMBEDDING_DIM, NOISE_PLANES * size * size),
            nn.Unflatten(1, (NOISE_PLANES, size, size)),
        )
        self.planes = LabelConditioned(embedding, planes)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * (1 + NOISE_PLANES), channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Tensor, labels: Tensor, enlarged: Tensor) -> Tensor:
        """Latents, labels and images to residuals."""
        residual: Tensor = self.layers(torch.cat([enlarged, self.planes(latents, labels)], dim=1))
        return residual


class PyramidGenerator(nn.Module):
    """Latents `(B, latent)`, the noise of all levels, and labels `(B,)` to images `(B, 1, size, size)` in [0, 1]."""

    def __init__(self, coarse: nn.Module, details: nn.ModuleList) -> None:
        super().__init__()
        self.coarse = coarse
        self.details = details
        self.to_images = ToImages()
        self.coarse_latent, self.detail_latent = COARSE_LATENT, DETAIL_LATENT

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Each level adds its residual to the enlarged image of the level before. Eq. 5, clamped to [0, 1]."""
        images: Tensor = self.to_images(self.coarse(latents[:, : self.coarse_latent], labels))
        start = self.coarse_latent
        for detail in self.details:
            enlarged = up(images)
            residual = detail(latents[:, start : start + self.detail_latent], labels, enlarged)
            images = (enlarged + residual).clamp(0.0, 1.0)
            start += self.detail_latent
        return images


class CoarseDiscriminator(nn.Module):
    """Images `(B, 1, 7, 7)` in [0, 1] and labels `(B,)` to logits `(B,)`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(SIZES[0] ** 2, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.LeakyReLU(0.2),
        )
        self.projection = Projection(classes, 512)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images and labels to logits."""
        logits: Tensor = self.projection(self.layers(images), labels)
        return logits


class DetailDiscriminator(nn.Module):
    """Images `(B, 1, S, S)` in [0, 1], labels `(B,)` and the enlarged images of the level before to logits `(B,)`.

    It sees the enlarged image, and its sum with the residual: the image.
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        side, channels = (size // 2 + 1) // 2, 48 * SIZES[1] // size  # side of the last features
        self.layers = nn.Sequential(
            nn.Conv2d(2, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * channels * side * side, 128),
            nn.LeakyReLU(0.2),
        )
        self.projection = Projection(classes, 128)

    def forward(self, images: Tensor, labels: Tensor, enlarged: Tensor) -> Tensor:
        """Pairs of images, and labels, to logits."""
        features = self.layers(torch.cat([images, enlarged], dim=1))
        logits: Tensor = self.projection(features, labels)
        return logits


class LastDiscriminator(nn.Module):
    """A `DetailDiscriminator` that computes the enlarged image of the level before from the image.

    Images `(B, 1, S, S)` in [0, 1] and labels `(B,)` to logits `(B,)`.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images and labels to logits."""
        logits: Tensor = self.discriminator(images, labels, up(down(images)))
        return logits


class LapganLearner(AdversarialLearner):
    """The generators and the discriminators of all levels up to a size."""

    conditional = True
    sampling = ("truncation",)

    def __init__(self, config: LapganConfig, data: DataShape, total_steps: int) -> None:
        sizes, classes = [size for size in SIZES[1:] if size <= config.size], data.classes
        details = nn.ModuleList(
            DetailGenerator(classes, size, config.detail_channels * SIZES[1] // size) for size in sizes
        )
        generator = PyramidGenerator(coarse_generator(classes), details)
        discriminators = nn.ModuleList(
            [CoarseDiscriminator(classes), *(DetailDiscriminator(classes, size) for size in sizes)]
        )
        for network in (generator, discriminators):
            network.apply(initialize_glorot)
        super().__init__(config, generator, discriminators, data, total_steps)
        self.size = config.size
        self.latent_dim = COARSE_LATENT + DETAIL_LATENT * len(sizes)
        self.image_shape = self.input_shape = (1, config.size, config.size)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Steps of all discriminators on each batch of `(steps, B, 1, 28, 28)`, then one of all generators.

        Each level learns from real images of the level before, independent of the others.
        """
        for batch, classes in zip(images, labels, strict=True):
            levels = gaussian_pyramid(batch, self.size)
            with torch.set_grad_enabled(self.config.shared_fakes):
                fakes = self._level_fakes(levels, classes)
            losses = self._discriminator_losses(levels, [fake.detach() for fake in fakes], classes)
            gradient_step(self.discriminator_optimizer, torch.stack(losses).sum())

        if not self.config.shared_fakes:
            fakes = self._level_fakes(levels, classes)
        self.discriminator.requires_grad_(False)
        with self.autocast():
            logits = [self._level_logits(level, fake, classes, levels) for level, fake in enumerate(fakes)]
        generator_losses = [generator_loss(each.float()) for each in logits]
        gradient_step(self.generator_optimizer, torch.stack(generator_losses).sum())
        self.discriminator.requires_grad_(True)

        self.generator_schedule.step()
        self.discriminator_schedule.step()
        self.average.update_parameters(self.generator)
        named = {f"discriminator_{SIZES[level]}": loss.detach() for level, loss in enumerate(losses)}
        return named | {f"generator_{SIZES[level]}": loss.detach() for level, loss in enumerate(generator_losses)}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged generators in sequence, and the discriminator of the last level."""
        assert isinstance(self.discriminator, nn.ModuleList)
        last = self.discriminator[-1]
        return {
            "generate": self.average.module,
            "discriminate": last if self.size == SIZES[0] else LastDiscriminator(last),
        }

    def _level_fakes(self, levels: list[Tensor], labels: Tensor) -> list[Tensor]:
        """A generated image of each level, from noise, the label and the real image of the level before."""
        pyramid = self.generator
        assert isinstance(pyramid, PyramidGenerator)
        latents = torch.randn(len(labels), self.latent_dim, device=labels.device)
        with self.autocast():
            logits = pyramid.coarse(latents[:, :COARSE_LATENT], labels)
        fakes = [torch.sigmoid(logits.float())]
        noises = torch.split(latents[:, COARSE_LATENT:], DETAIL_LATENT, dim=1)
        for detail, noise, coarse in zip(pyramid.details, noises, levels, strict=False):
            enlarged = up(coarse)
            with self.autocast():
                residual = detail(noise, labels, enlarged)
            fakes.append((enlarged + residual.float()).clamp(0, 1))
        return fakes

    def _level_logits(self, level: int, images: Tensor, labels: Tensor, levels: list[Tensor]) -> Tensor:
        """The logits `(B,)` of images of a level, given their labels and the real images of the level before.

        The images may be the first ones of the batch only; `labels` and `levels` are those of the whole batch.
        """
        assert isinstance(self.discriminator, nn.ModuleList)
        given = () if level == 0 else (up(levels[level - 1][: len(images)]),)
        logits: Tensor = self.discriminator[level](images, labels[: len(images)], *given)
        return logits

    def _discriminator_losses(self, levels: list[Tensor], fakes: list[Tensor], labels: Tensor) -> list[Tensor]:
        losses = []
        for level, (real, fake) in enumerate(zip(levels, fakes, strict=True)):

            def discriminate(images: Tensor, level: int = level) -> Tensor:
                return self._level_logits(level, images, labels, levels)

            with self.autocast():
                real_logits, fake_logits = discriminate(real), discriminate(fake)
            loss = discriminator_loss(real_logits.float(), fake_logits.float())
            if self.config.gradient_penalty > 0:
                share = max(1, len(real) // PENALISED_SHARE)
                # The gradient of one change of the image is spread over its pixels: the squared norm falls with them.
                gamma = self.config.gradient_penalty * (SIZES[level] / SIZES[0]) ** 2
                loss = loss + gamma / 2 * gradient_penalty(discriminate, real[:share])
            losses.append(loss)
        return losses


FAMILY = Family("lapgan", LapganConfig, LapganLearner)

"""Laplacian pyramid of GANs: one of 7x7 images, and conditional ones that add the details of 14x14 and 28x28 images.

Sources: E. Denton et al., "Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks", 2015,
arXiv:1506.05751; P. Burt, E. Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983 (with area averages and
bilinear interpolation here). The losses are in `adversarial`; R1 and the moving average are later additions.
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
from training.families.discriminators import initialize_glorot
from training.fast_layers import ToImages
from training.learner import DataShape, TrainingSet

SIZES = (7, 14, 28)
COARSE_LATENT, DETAIL_LATENT = 64, 32


class LapganConfig(AdversarialConfig):
    """A Laplacian pyramid of generative adversarial networks."""

    family: Literal["lapgan"] = "lapgan"
    name: str = Field("lapgan", pattern=NAME_PATTERN)
    epochs: int = Field(12, ge=1, description="one step of all generators for each batch of the data")
    batch_size: int = Field(64, ge=2)
    size: int = Field(28, description="7, 14 or 28: width of the images that the last level makes")
    detail_channels: int = Field(64, ge=1, description="of the generators of details")
    batch_norm: bool = Field(False, description="without effect: the generators have none")

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


class CoarseGenerator(nn.Module):
    """Latents `(B, COARSE_LATENT)` to pixel logits `(B, 1, 7, 7)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(COARSE_LATENT, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, SIZES[0] ** 2),
            nn.Unflatten(1, (1, SIZES[0], SIZES[0])),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Latents to pixel logits."""
        logits: Tensor = self.layers(latents)
        return logits


class DetailGenerator(nn.Module):
    """Latents `(B, DETAIL_LATENT)` and enlarged images `(B, 1, S, S)` in [0, 1] to residuals of the same shape.

    The noise is a second plane beside the image. Blocks of 2x2 pixels become channels, at a quarter of the cost.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(DETAIL_LATENT, size * size), nn.Unflatten(1, (1, size, size)))
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(8, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Tensor, enlarged: Tensor) -> Tensor:
        """Latents and images to residuals."""
        residual: Tensor = self.layers(torch.cat([enlarged, self.noise(latents)], dim=1))
        return residual


class PyramidGenerator(nn.Module):
    """Latents `(B, latent)`, the noise of all levels, to images `(B, 1, size, size)` in [0, 1]."""

    def __init__(self, coarse: nn.Module, details: nn.ModuleList) -> None:
        super().__init__()
        self.coarse = coarse
        self.details = details
        self.to_images = ToImages()
        self.coarse_latent, self.detail_latent = COARSE_LATENT, DETAIL_LATENT

    def forward(self, latents: Tensor) -> Tensor:
        """Each level adds its residual to the enlarged image of the level before. Eq. 5, clamped to [0, 1]."""
        images: Tensor = self.to_images(self.coarse(latents[:, : self.coarse_latent]))
        start = self.coarse_latent
        for detail in self.details:
            enlarged = up(images)
            residual = detail(latents[:, start : start + self.detail_latent], enlarged)
            images = (enlarged + residual).clamp(0.0, 1.0)
            start += self.detail_latent
        return images


class CoarseDiscriminator(nn.Module):
    """Images `(B, 1, 7, 7)` in [0, 1] to logits `(B,)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(SIZES[0] ** 2, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.layers(images)
        return logits


class DetailDiscriminator(nn.Module):
    """Images `(B, 1, S, S)` in [0, 1] and the enlarged ones of the level before, same shape, to logits `(B,)`.

    It sees the enlarged image and the sum of it and the residual, which is the image.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        side = (size // 2 + 1) // 2  # of the last features
        self.layers = nn.Sequential(
            nn.Conv2d(2, 48, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(96 * side * side, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor, enlarged: Tensor) -> Tensor:
        """Pairs of images to logits."""
        logits: Tensor = self.layers(torch.cat([images, enlarged], dim=1))
        return logits


class LastDiscriminator(nn.Module):
    """Images `(B, 1, S, S)` in [0, 1] to logits `(B,)`: the last level's, which computes the level before itself."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.discriminator(images, up(down(images)))
        return logits


class LapganLearner(AdversarialLearner):
    """The generators and the discriminators of all levels up to a size."""

    sampling = ("truncation",)

    def __init__(self, config: LapganConfig, data: DataShape, total_steps: int) -> None:
        sizes = [size for size in SIZES[1:] if size <= config.size]
        details = nn.ModuleList(DetailGenerator(size, config.detail_channels) for size in sizes)
        discriminators = nn.ModuleList([CoarseDiscriminator(), *map(DetailDiscriminator, sizes)])
        generator = PyramidGenerator(CoarseGenerator(), details)
        for network in (generator, discriminators):
            network.apply(initialize_glorot)
        super().__init__(config, generator, discriminators, data, total_steps)
        self.size = config.size
        self.latent_dim = COARSE_LATENT + DETAIL_LATENT * len(sizes)
        self.image_shape = self.input_shape = (1, config.size, config.size)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - it takes none
        """Steps of all discriminators on each batch of `(steps, B, 1, 28, 28)`, then one of all generators.

        Each level learns from real images of the level before, independent of the others.
        """
        for batch in images:
            levels = gaussian_pyramid(batch, self.size)
            fakes = self._level_fakes(levels)
            losses = self._discriminator_losses(levels, [fake.detach() for fake in fakes])
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            self.discriminator_optimizer.step()

        if not self.config.shared_fakes:
            fakes = self._level_fakes(levels)
        self.discriminator.requires_grad_(False)
        with self.autocast():
            logits = [self._level_logits(level, fake, levels) for level, fake in enumerate(fakes)]
        generator_losses = [generator_loss(each.float()) for each in logits]
        self.generator_optimizer.zero_grad(set_to_none=True)
        torch.stack(generator_losses).sum().backward()  # type: ignore[no-untyped-call]
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)

        self.generator_schedule.step()
        self.discriminator_schedule.step()
        self.average.update_parameters(self.generator)
        named = {f"discriminator_{SIZES[level]}": loss.detach() for level, loss in enumerate(losses)}
        return named | {f"generator_{SIZES[level]}": loss.detach() for level, loss in enumerate(generator_losses)}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged generators in sequence, and the discriminator of the last level."""
        return {"generate": self.average.module, "discriminate": self._last_discriminator()}

    def _last_discriminator(self) -> nn.Module:
        assert isinstance(self.discriminator, nn.ModuleList)
        last = self.discriminator[-1]
        return last if self.size == SIZES[0] else LastDiscriminator(last)

    def _level_fakes(self, levels: list[Tensor]) -> list[Tensor]:
        """A generated image of each level, from noise and the real image of the level before."""
        pyramid, rows, device = self.generator, len(levels[0]), levels[0].device
        assert isinstance(pyramid, PyramidGenerator)
        latents = torch.randn(rows, self.latent_dim, device=device)
        with self.autocast():
            logits = pyramid.coarse(latents[:, :COARSE_LATENT])
        fakes = [torch.sigmoid(logits.float())]
        noises = torch.split(latents[:, COARSE_LATENT:], DETAIL_LATENT, dim=1)
        for detail, noise, coarse in zip(pyramid.details, noises, levels, strict=False):
            enlarged = up(coarse)
            with self.autocast():
                residual = detail(noise, enlarged)
            fakes.append((enlarged + residual.float()).clamp(0, 1))
        return fakes

    def _level_logits(self, level: int, images: Tensor, levels: list[Tensor]) -> Tensor:
        """The logits `(B,)` of images of a level, beside the first real images of the level before."""
        assert isinstance(self.discriminator, nn.ModuleList)
        given = () if level == 0 else (up(levels[level - 1][: len(images)]),)
        logits: Tensor = self.discriminator[level](images, *given)
        return logits

    def _discriminator_losses(self, levels: list[Tensor], fakes: list[Tensor]) -> list[Tensor]:
        losses = []
        for level, (real, fake) in enumerate(zip(levels, fakes, strict=True)):
            with self.autocast():
                real_logits, fake_logits = (self._level_logits(level, each, levels) for each in (real, fake))
            loss = discriminator_loss(real_logits.float(), fake_logits.float())
            if self.config.gradient_penalty > 0:
                share = max(1, len(real) // PENALISED_SHARE)
                penalty = gradient_penalty(
                    lambda some, level=level: self._level_logits(level, some, levels),  # type: ignore[misc]
                    real[:share],
                )
                loss = loss + self.config.gradient_penalty / 2 * penalty
            losses.append(loss)
        return losses


FAMILY = Family("lapgan", LapganConfig, LapganLearner)

"""Generative adversarial network. The losses are in `adversarial`.

Sources: I. Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661; A. Radford et al.,
"Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", 2015,
arXiv:1511.06434 (batch normalisation in the generator).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.config import NAME_PATTERN
from training.families import Family
from training.families.adversarial import (
    BATCH_NORM,
    GRADIENT_PENALTY,
    SHARED_FAKES,
    AdversarialConfig,
    AdversarialLearner,
)
from training.families.discriminators import DeepDiscriminator, Discriminator, initialize_glorot
from training.fast_layers import fast_upsampler, stable_rows
from training.learner import DataShape

LATENT_DIM = 100
CHANNELS = "of the generator's feature maps"


class GanConfig(AdversarialConfig):
    """A generative adversarial network."""

    family: Literal["gan"] = "gan"
    name: str = Field("gan", pattern=NAME_PATTERN)
    epochs: int = Field(22, ge=1, description="one generator step for each batch of the data")
    batch_size: int = Field(64, ge=2)
    discriminator: Literal["near-sighted", "deep"] = Field(
        "near-sighted", description="two convolutions that see 7x7 pixels, or four layers that see the whole image"
    )
    generator_learning_rate: float = Field(2e-4, gt=0)
    discriminator_learning_rate: float = Field(2e-4, gt=0)
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of squared gradients, of both networks")
    shared_fakes: bool = Field(False, description=SHARED_FAKES)
    gradient_penalty: float = Field(0.0, ge=0, description=GRADIENT_PENALTY)
    batch_norm: bool = Field(True, description=BATCH_NORM)
    channels: int = Field(128, ge=1, description=CHANNELS)


class ConvToOneChannel(nn.Conv2d):
    """A convolution to one channel that keeps the size. In training it is a matrix product, with the same result.

    On a processor without AMX, the convolution kernels leave most lanes of the vector units empty for one channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, H, W)` to `(B, 1, H, W)`."""
        if not self.training:
            convolved: Tensor = self._conv_forward(x, self.weight, self.bias)
            return convolved
        batch, channels, height, width = x.shape
        # What each input pixel adds to each of the K x K output pixels around it, which `fold` sums up.
        kernel = self.weight[0].flip(1, 2).flatten(1)  # (in, K * K)
        terms = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels) @ kernel
        size = self.weight.shape[2]
        sums = functional.fold(terms.float().transpose(1, 2), (height, width), size, padding=size // 2)
        assert self.bias is not None
        return sums + self.bias


class Generator(nn.Module):
    """Latents to image logits.

    With `batch_norm`, batch normalisation follows the first three layers. It is for training only: `fold_batch_norm`
    absorbs it into those layers, and the exported generator has none.
    """

    def __init__(self, latent_dim: int, channels: int, *, batch_norm: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

        self.channels = channels
        self.dense = nn.Linear(latent_dim, channels * 7 * 7)
        self.dense_norm = norm()
        self.up1 = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up1_norm = norm()
        self.up2 = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up2_norm = norm()
        self.to_image = ConvToOneChannel(channels, 1, 7, padding=3)
        self.apply(initialize_glorot)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`; their sigmoid is the image."""
        x = self.dense(latents).view(-1, self.channels, 7, 7)
        x = functional.leaky_relu(self.dense_norm(x), 0.2)
        x = functional.leaky_relu(self.up1_norm(self.up1(x)), 0.2)  # (B, channels, 14, 14)
        x = functional.leaky_relu(self.up2_norm(self.up2(x)), 0.2)  # (B, channels, 28, 28)
        logits: Tensor = self.to_image(x)
        return logits


class GanLearner(AdversarialLearner):
    """A generator and a discriminator without labels."""

    latent_dim = LATENT_DIM
    sampling = ("truncation",)

    def __init__(self, config: GanConfig, data: DataShape, total_steps: int) -> None:
        discriminator = DeepDiscriminator() if config.discriminator == "deep" else Discriminator()
        generator = Generator(LATENT_DIM, config.channels, batch_norm=config.batch_norm)
        super().__init__(config, generator, discriminator, data, total_steps)

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The generator rewritten, the discriminator with stable rows."""
        images = networks["generate"]
        assert isinstance(images, nn.Sequential)
        generate = nn.Sequential(fast_generator(images[0], dtype), images[1])
        return {"generate": generate, "discriminate": stable_rows(networks["discriminate"])}


def fast_generator(generator: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A `Generator` without batch normalisation, rewritten: latents `(B, latent)` to logits `(B, 1, 28, 28)`."""
    assert isinstance(generator, Generator)
    last = generator.to_image
    return fast_upsampler(
        generator.dense, (generator.up1, generator.up2), last.weight[0], last.bias, dtype, slopes=(0.2, 0.2)
    )


FAMILY = Family("gan", GanConfig, GanLearner)

"""Deep convolutional GAN. The losses are in `adversarial`.

Source: A. Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", 2015, arXiv:1511.06434: strides in place of pooling, batch normalisation, ReLU in the generator and leaky
ReLU in the discriminator, no dense layer but the projection of the latent.

The discriminator has no batch normalisation: the gradient penalty R1, which regularises it here, needs logits that
depend on their own image only (arXiv:1801.04406). Statistics over mixed batches would also let the discriminator
recognise generated images by their batch.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.config import EVALUATE_EVERY, NAME_PATTERN
from training.families import Family
from training.families.adversarial import BATCH_NORM, GRADIENT_PENALTY, AdversarialConfig, AdversarialLearner
from training.families.discriminators import initialize_glorot
from training.families.gan import LATENT_DIM
from training.fast_layers import fast_upsampler, stable_rows
from training.learner import DataShape


class DcganConfig(AdversarialConfig):
    """A deep convolutional generative adversarial network."""

    family: Literal["dcgan"] = "dcgan"
    name: str = Field("dcgan", pattern=NAME_PATTERN)
    epochs: int = Field(32, ge=1, description="one generator step for each batch of the data")
    batch_size: int = Field(64, ge=2)
    evaluate_every: int = Field(3, ge=0, description=EVALUATE_EVERY)
    gradient_penalty: float = Field(0.5, ge=0, description=GRADIENT_PENALTY)
    batch_norm: bool = Field(True, description=BATCH_NORM)
    channels: int = Field(128, ge=4, multiple_of=4, description="of the generator at 7x7 pixels")


class DcganGenerator(nn.Module):
    """Latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`; their sigmoid is the image.

    With `batch_norm`, batch normalisation follows all layers but the last. It is for training only: `fold_batch_norm`
    absorbs it into those layers.
    """

    def __init__(self, channels: int, *, batch_norm: bool) -> None:
        super().__init__()

        def norm(width: int) -> nn.Module:
            return nn.BatchNorm2d(width) if batch_norm else nn.Identity()

        self.channels = channels
        self.projection = nn.Linear(LATENT_DIM, channels * 7 * 7)
        self.projection_norm = norm(channels)
        self.up1 = nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1)
        self.up1_norm = norm(channels // 2)
        self.up2 = nn.ConvTranspose2d(channels // 2, channels // 4, 4, stride=2, padding=1)
        self.up2_norm = norm(channels // 4)
        self.to_image = nn.Conv2d(channels // 4, 1, 5, padding=2)
        self.apply(initialize_glorot)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents to pixel logits."""
        x = self.projection(latents).view(-1, self.channels, 7, 7)
        x = functional.relu(self.projection_norm(x))
        x = functional.relu(self.up1_norm(self.up1(x)))  # (B, channels / 2, 14, 14)
        x = functional.relu(self.up2_norm(self.up2(x)))  # (B, channels / 4, 28, 28)
        logits: Tensor = self.to_image(x)
        return logits


def fast_form(generator: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A `DcganGenerator` without batch normalisation, rewritten: latents `(B, latent)` to logits `(B, 1, 28, 28)`."""
    assert isinstance(generator, DcganGenerator)
    ups, last = (generator.up1, generator.up2), generator.to_image
    return fast_upsampler(generator.projection, ups, last.weight[0], last.bias, dtype, slopes=(0.0, 0.0))


class DcganDiscriminator(nn.Module):
    """Images `(B, 1, 28, 28)` in [0, 1] to logits `(B,)`, positive for a real image.

    Four convolutions with stride, as in the paper: each of the last 2x2 features sees the whole image. The fifth, over
    all of them, is the paper's flattened features into one output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1),  # (B, 64, 14, 14)
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, stride=2, padding=1),  # (B, 128, 7, 7)
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, 3, stride=2, padding=1),  # (B, 256, 4, 4)
            nn.LeakyReLU(0.2),
            nn.Conv2d(256, 512, 3, stride=2, padding=1),  # (B, 512, 2, 2)
            nn.LeakyReLU(0.2),
            nn.Conv2d(512, 1, 2),
            nn.Flatten(0),
        )
        self.apply(initialize_glorot)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.layers(images)
        return logits


class DcganLearner(AdversarialLearner):
    """A generator and a discriminator without labels."""

    latent_dim = LATENT_DIM
    sampling = ("truncation",)

    def __init__(self, config: DcganConfig, data: DataShape, total_steps: int) -> None:
        generator = DcganGenerator(config.channels, batch_norm=config.batch_norm)
        super().__init__(config, generator, DcganDiscriminator(), data, total_steps)

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The generator rewritten, the discriminator with stable rows."""
        images = networks["generate"]
        assert isinstance(images, nn.Sequential)
        generate = nn.Sequential(fast_form(images[0], dtype), images[1])
        return {"generate": generate, "discriminate": stable_rows(networks["discriminate"])}


FAMILY = Family("dcgan", DcganConfig, DcganLearner)

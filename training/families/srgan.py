"""Super-resolution: small images to images of two or four times their width and height.

The losses of the discriminator and the generator are in `adversarial`.

Sources: C. Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network",
2016, arXiv:1609.04802 (SRGAN: residual blocks, pixel shuffle, and the three terms of the loss); B. Lim et al.,
"Enhanced Deep Residual Networks for Single Image Super-Resolution", 2017, arXiv:1707.02921 (no batch normalisation).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training import schedules
from training.archive import Networks
from training.average import Average
from training.config import NAME_PATTERN, TrainConfig
from training.families import Family
from training.families.adversarial import discriminator_loss, generator_loss
from training.families.discriminators import Discriminator
from training.families.variational import reconstruction_error
from training.families.vgg import Vgg
from training.fast_layers import ToImages
from training.learner import DataShape, Learner, TrainingSet, gradient_step

CHANNELS = 64
BLOCKS = {2: 4, 4: 8}  # by factor: at factor 2 a block costs four times as much
CLASSIFIER_WIDTHS = (16, 32, 32)


class SrganConfig(TrainConfig):
    """A super-resolution GAN: small images to larger ones."""

    family: Literal["srgan"] = "srgan"
    name: str = Field("srgan", pattern=NAME_PATTERN)
    epochs: int = Field(8, ge=1)
    batch_size: int = Field(32, ge=2)
    factor: int = Field(4, ge=2, le=4, multiple_of=2, description="2 or 4, between the widths of output and input")
    learning_rate: float = Field(1e-3, gt=0, description="of every network, at the start; it falls to 0 along a cosine")
    perceptual_weight: float = Field(30.0, ge=0, description="of the perceptual loss, beside that of the pixels")
    adversarial_weight: float = Field(2.0, ge=0, description="of the adversarial loss, beside that of the pixels")

    @classmethod
    def default_name(cls, values: dict[str, Any]) -> str:
        """`srgan`, or `srgan-2x` for factor 2."""
        return "srgan-2x" if str(values.get("factor")) == "2" else "srgan"


class ResidualBlock(nn.Module):
    """Two convolutions around which the input is added: `(B, channels, H, W)` to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        residual: Tensor = self.layers(x)
        return x + residual


class Upscaler(nn.Module):
    """Images `(B, 1, h, w)` in [0, 1] to pixel logits `(B, 1, factor * h, factor * w)`; their sigmoid is the image.

    All but the last layers compute at the low resolution. Each pixel shuffle doubles it (W. Shi et al., "Real-Time
    Single Image and Video Super-Resolution...", 2016, arXiv:1609.05158).
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU())
        blocks = [ResidualBlock(CHANNELS) for _ in range(BLOCKS[factor])]
        self.body = nn.Sequential(*blocks, nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
        layers: list[nn.Module] = []
        for _ in range(factor // 4):
            layers += [nn.Conv2d(CHANNELS, 4 * CHANNELS, 3, padding=1), nn.PixelShuffle(2), nn.ReLU()]
        self.tail = nn.Sequential(*layers, nn.Conv2d(CHANNELS, 4, 5, padding=2), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        """Images to pixel logits."""
        x = self.head(images)
        logits: Tensor = self.tail(x + self.body(x))
        return logits


def reduced(images: Tensor, factor: int) -> Tensor:
    """Images `(B, 1, H, W)` in [0, 1] to `(B, 1, H / factor, W / factor)`.

    They are means over factor x factor pixels, rounded to 8 bits.
    """
    return (functional.avg_pool2d(images, factor) * 255 + 0.5).floor() / 255


def perceptual_loss(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean squared difference of features, summed over layers: a scalar. Eq. 5 of arXiv:1609.04802.

    Each layer has features `(B, C, H, W)` of the upscaled images and the wanted ones, of the real images.
    """
    layers = zip(features, wanted, strict=True)
    return torch.stack([functional.mse_loss(ours.float(), theirs.float()) for ours, theirs in layers]).sum()


class SrganLearner(Learner):
    """The upscaler, a discriminator and the classifier of the perceptual loss, with their optimisers.

    The classifier learns along with the upscaler, from the same batches, so that a run needs no other run or file and
    resumes as any other. It is not the classifier of the quality figures. Only the moving average of the upscaler is
    exported.
    """

    def __init__(self, config: SrganConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        channels, height, width = data.image
        self.input_shape = (channels, height // config.factor, width // config.factor)
        self.upscaler = Upscaler(config.factor).to(memory_format=torch.channels_last)
        self.discriminator = Discriminator().to(memory_format=torch.channels_last)
        self.classifier = Vgg(data.classes, CLASSIFIER_WIDTHS).to(memory_format=torch.channels_last)
        self.average = Average(self.upscaler, config.ema_decay)

        def adam(network: nn.Module, first_moment: float) -> torch.optim.Adam:
            return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(first_moment, 0.99))

        self.upscaler_optimizer = adam(self.upscaler, 0.9)
        self.discriminator_optimizer = adam(self.discriminator, 0.5)
        self.classifier_optimizer = adam(self.classifier, 0.9)
        self.upscaler_schedule = schedules.cosine(self.upscaler_optimizer, total_steps)
        self.discriminator_schedule = schedules.cosine(self.discriminator_optimizer, total_steps)
        self.classifier_schedule = schedules.cosine(self.classifier_optimizer, total_steps)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step of each network on images `(1, B, 1, H, W)`; the losses of the batch."""
        real = images[0]
        losses = {"classifier": self._classifier_step(real, labels[0])}
        with self.autocast():
            logits = self.upscaler(reduced(real, self.config.factor))
        logits = logits.float()
        upscaled = torch.sigmoid(logits)
        losses["discriminator"] = self._discriminator_step(real, upscaled.detach())

        # The upscaler learns, the other networks are fixed.
        others = (self.classifier, self.discriminator)
        for network in others:
            network.requires_grad_(False)
        pixels = reconstruction_error(logits, real).mean()
        perceptual, generator = self._perceptual_and_adversarial(real, upscaled)
        loss = pixels + self.config.perceptual_weight * perceptual + self.config.adversarial_weight * generator
        gradient_step(self.upscaler_optimizer, loss)
        for network in others:
            network.requires_grad_(True)

        for schedule in (self.upscaler_schedule, self.discriminator_schedule, self.classifier_schedule):
            schedule.step()
        self.average.update_parameters(self.upscaler)
        return losses | {
            "pixels": pixels.detach(),
            "perceptual": perceptual.detach(),
            "generator": generator.detach(),
        }

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged upscaler."""
        return {"upscale": nn.Sequential(self.average.module, ToImages())}

    def _classifier_step(self, real: Tensor, labels: Tensor) -> Tensor:
        with self.autocast():
            logits = self.classifier(real)
        loss = functional.cross_entropy(logits.float(), labels)
        gradient_step(self.classifier_optimizer, loss)
        return loss.detach()

    def _discriminator_step(self, real: Tensor, upscaled: Tensor) -> Tensor:
        with self.autocast():
            logits = self.discriminator(torch.cat([real, upscaled]))
        loss = discriminator_loss(*logits.float().chunk(2))
        gradient_step(self.discriminator_optimizer, loss)
        return loss.detach()

    def _perceptual_and_adversarial(self, real: Tensor, upscaled: Tensor) -> tuple[Tensor, Tensor]:
        """The perceptual and the adversarial loss of upscaled images `(B, 1, H, W)`, two scalars."""
        self.classifier.eval()  # in training mode a feature would depend on the batch
        with self.autocast():
            with torch.no_grad():
                wanted = self.classifier.features(real)
            features = self.classifier.features(upscaled)
            logits = self.discriminator(upscaled)
        self.classifier.train()
        return perceptual_loss(features, wanted), generator_loss(logits.float())


FAMILY = Family("srgan", SrganConfig, SrganLearner)

"""A classifier in the style of VGG: stages of 3x3 convolutions with pooling between them.

Sources: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
arXiv:1409.1556; S. Ioffe, C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from training.config import NAME_PATTERN
from training.families import Family
from training.families.classification import ClassificationConfig, ClassificationLearner
from training.learner import DataShape

WIDTHS = (16, 48, 96)


class VggConfig(ClassificationConfig):
    """A classifier in the style of VGG."""

    family: Literal["vgg"] = "vgg"
    name: str = Field("vgg", pattern=NAME_PATTERN)
    epochs: int = Field(18, ge=1)


class Vgg(nn.Module):
    """Images `(B, 1, H, W)` in [0, 1] to one logit per class.

    `widths` are the channels of the three stages, each of two convolutions at half the resolution of the stage before.
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.stages = nn.ModuleList([stage(*channels) for channels in pairwise((1, *widths))])
        self.pool = nn.MaxPool2d(2)
        self.to_logits = nn.Sequential(
            nn.AdaptiveMaxPool2d(3),  # (B, widths[-1], 3, 3), of 7x7 pixels
            nn.Flatten(),
            nn.Dropout(0.4),
            nn.Linear(widths[-1] * 9, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, classes),
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of each stage, not negative: `(B, widths[i], H / 2**i, W / 2**i)`."""
        found: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = stage(x)
            found.append(x)
            x = self.pool(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] to logits `(B, classes)`."""
        logits: Tensor = self.to_logits(self.features(images)[-1])
        return logits


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions that keep the size: `(B, inputs, H, W)` to `(B, outputs, H, W)`."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        # Batch normalisation adds the bias.
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class VggLearner(ClassificationLearner):
    """A VGG with its optimiser."""

    def __init__(self, config: VggConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(config, Vgg(data.classes), data, total_steps)


FAMILY = Family("vgg", VggConfig, VggLearner)

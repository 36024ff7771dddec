"""The GAN of 2014, of multilayer perceptrons. The losses are in `adversarial`.

Sources: I. Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661 (section 5: rectifiers and a sigmoid
in the generator, maxout and dropout in the discriminator); I. Goodfellow et al., "Maxout Networks", 2013,
arXiv:1302.4389. The moving average of the generator and the gradient penalty R1 are later additions. The penalty takes
the place of dropout: with little of it (gamma 0.1) and dropout the discriminator won within an epoch.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from training.config import NAME_PATTERN
from training.families import Family
from training.families.adversarial import GRADIENT_PENALTY, AdversarialConfig, AdversarialLearner
from training.families.discriminators import initialize_glorot
from training.families.gan import LATENT_DIM
from training.learner import DataShape

WIDTHS = (256, 512, 1024)
MAXOUT_WIDTH, MAXOUT_PIECES = 256, 4


class GanMlpConfig(AdversarialConfig):
    """A generative adversarial network of multilayer perceptrons, without convolutions."""

    family: Literal["gan-mlp"] = "gan-mlp"
    name: str = Field("gan-mlp", pattern=NAME_PATTERN)
    epochs: int = Field(25, ge=1, description="one generator step for each batch of the data")
    batch_size: int = Field(64, ge=2)
    generator_learning_rate: float = Field(5e-4, gt=0)
    discriminator_learning_rate: float = Field(5e-4, gt=0)
    gradient_penalty: float = Field(2.0, ge=0, description=GRADIENT_PENALTY)
    dropout: float = Field(0.0, ge=0, lt=1, description="of the hidden layers of the discriminator")


class Maxout(nn.Module):
    """The largest of several linear functions: `(B, in)` to `(B, out)`. Eq. 2 of arXiv:1302.4389."""

    def __init__(self, width: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        pieces: Tensor = self.linear(x)
        return pieces.view(x.shape[0], -1, self.pieces).max(dim=2)[0]


class PerceptronGenerator(nn.Module):
    """Latents `(B, latent)` to pixel logits `(B, 1, H, W)`; their sigmoid is the image."""

    def __init__(self, latent_dim: int, image: tuple[int, int, int]) -> None:
        super().__init__()
        _, height, width = image
        layers: list[nn.Module] = []
        for before, after in zip((latent_dim, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], height * width), nn.Unflatten(1, image))
        self.apply(initialize_glorot)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents to pixel logits."""
        logits: Tensor = self.layers(latents)
        return logits


class MaxoutDiscriminator(nn.Module):
    """Images `(B, 1, H, W)` in [0, 1] to logits `(B,)`, positive for a real image."""

    def __init__(self, image: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        _, height, width = image
        self.layers = nn.Sequential(
            nn.Flatten(),
            Maxout(height * width, MAXOUT_WIDTH, MAXOUT_PIECES),
            nn.Dropout(dropout),
            Maxout(MAXOUT_WIDTH, MAXOUT_WIDTH, MAXOUT_PIECES),
            nn.Dropout(dropout),
            nn.Linear(MAXOUT_WIDTH, 1),
        )
        self.apply(initialize_glorot)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.layers(images).squeeze(1)
        return logits


class GanMlpLearner(AdversarialLearner):
    """Two multilayer perceptrons without labels."""

    latent_dim = LATENT_DIM
    sampling = ("truncation",)

    def __init__(self, config: GanMlpConfig, data: DataShape, total_steps: int) -> None:
        generator = PerceptronGenerator(LATENT_DIM, data.image)
        super().__init__(config, generator, MaxoutDiscriminator(data.image, config.dropout), data, total_steps)


FAMILY = Family("gan-mlp", GanMlpConfig, GanMlpLearner)

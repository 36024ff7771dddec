"""Discriminators: networks that tell generated images from real ones.

Sources: A. Radford et al., arXiv:1511.06434 (strided convolutions in place of pooling); T. Miyato, M. Koyama,
"cGANs with Projection Discriminator", 2018, arXiv:1802.05637.
"""

from torch import Tensor, nn
from torch.nn import functional


class Discriminator(nn.Module):
    """Images to one logit each, positive for a real image.

    Each of its 49 last features sees 7x7 pixels, and the logit is linear in them: it judges strokes, not digits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 3, stride=2, padding=1),  # (B, 64, 14, 14)
            nn.LeakyReLU(0.2),
            nn.Dropout(0.4),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),  # (B, 64, 7, 7)
            nn.LeakyReLU(0.2),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 1),
        )
        self.apply(initialize_glorot)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] to logits `(B,)`."""
        logits: Tensor = self.layers(images).squeeze(1)
        return logits


class DeepFeatures(nn.Module):
    """Images `(B, 1, 28, 28)` to features `(B, 256)`, each of which sees the whole image.

    There is no dropout: the gradient penalty regularises these layers.
    """

    WIDTH = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 4, stride=2, padding=1)
        self.conv3 = nn.Conv2d(128, 128, 3, stride=2, padding=1)
        self.dense = nn.Linear(128 * 4 * 4, self.WIDTH)
        self.apply(initialize_glorot)

    def forward(self, images: Tensor) -> Tensor:
        """Images are in [0, 1]."""
        x = functional.leaky_relu(self.conv1(images), 0.2)  # (B, 64, 14, 14)
        x = functional.leaky_relu(self.conv2(x), 0.2)  # (B, 128, 7, 7)
        x = functional.leaky_relu(self.conv3(x), 0.2)  # (B, 128, 4, 4)
        return functional.leaky_relu(self.dense(x.flatten(1)), 0.2)


class DeepDiscriminator(nn.Module):
    """Images to one logit each, by features of the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = DeepFeatures()
        self.logit = nn.Linear(DeepFeatures.WIDTH, 1)
        initialize_glorot(self.logit)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] to logits `(B,)`."""
        logits: Tensor = self.logit(self.features(images)).squeeze(1)
        return logits


class Projection(nn.Module):
    """Features `(B, width)` and labels int64 `(B,)` to logits `(B,)`: eq. 3 of arXiv:1802.05637."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.logit = nn.Linear(width, 1)
        self.embedding = nn.Embedding(classes, width)
        initialize_glorot(self.logit)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """How real the image is, plus how well the label fits."""
        logits: Tensor = self.logit(features).squeeze(1) + (features * self.embedding(labels)).sum(dim=1)
        return logits


class ProjectionDiscriminator(nn.Module):
    """Images and labels to logits, by features of the whole image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = DeepFeatures()
        self.projection = Projection(classes, DeepFeatures.WIDTH)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] and labels int64 `(B,)` to logits `(B,)`."""
        logits: Tensor = self.projection(self.features(images), labels)
        return logits


def initialize_glorot(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, in place.

    With PyTorch's default initialisation the discriminator wins within one epoch (its loss falls to
    0.001) and the generator learns nothing. Source: X. Glorot, Y. Bengio, AISTATS 2010.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""Variational autoencoder.

Source: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.archive import Networks
from training.config import NAME_PATTERN
from training.families import Family
from training.families.variational import LATENT_DIM, VariationalConfig, VariationalLearner, posterior_sample
from training.fast_layers import ToImages, fast_upsampler, stable_rows
from training.learner import DataShape, TrainingSet

FEATURES = 128


class VaeConfig(VariationalConfig):
    """A variational autoencoder."""

    family: Literal["vae"] = "vae"
    name: str = Field("vae", pattern=NAME_PATTERN)


def image_convolutions() -> list[nn.Module]:
    """The layers from images `(B, 1, 28, 28)` to rows `(B, 64 * 7 * 7)`."""
    return [
        nn.Conv2d(1, 32, 3, stride=2, padding=1),  # (B, 32, 14, 14)
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (B, 64, 7, 7)
        nn.ReLU(),
        nn.Flatten(),
    ]


def image_features() -> nn.Sequential:
    """A network from images `(B, 1, 28, 28)` to features `(B, FEATURES)`."""
    return nn.Sequential(*image_convolutions(), nn.Linear(64 * 7 * 7, FEATURES), nn.ReLU())


class Encoder(nn.Module):
    """Images to the parameters of q(z|x), a diagonal normal distribution."""

    def __init__(self, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.features = image_features()
        self.mean = nn.Linear(FEATURES, latent_dim)
        self.log_variance = nn.Linear(FEATURES, latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1] to mean and log-variance, each `(B, latent)`."""
        features = self.features(images)
        return self.mean(features), self.log_variance(features)


class Decoder(nn.Module):
    """Latents to p(x|z), one Bernoulli parameter per pixel."""

    def __init__(self, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 64 * 7 * 7),
            nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1),  # (B, 64, 14, 14)
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),  # (B, 32, 28, 28)
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, stride=1, padding=1),  # (B, 1, 28, 28)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`; their sigmoid is the image."""
        logits: Tensor = self.layers(latents)
        return logits


class Vae(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.encoder = Encoder(latent_dim)
        self.decoder = Decoder(latent_dim)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images and standard normal `noise` `(B, latent)` to (pixel logits, mean, log-variance)."""
        mean, log_variance = self.encoder(images)
        latents = posterior_sample(mean, log_variance, noise)
        return self.decoder(latents), mean, log_variance


class VaeLearner(VariationalLearner):
    """An encoder and a decoder without labels. Mixtures fitted to the latents of each class give images labels."""

    def __init__(self, config: VaeConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(config, Vae(), data, total_steps)

    def run(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """Images `(B, 1, 28, 28)` and noise `(B, latent)` to (pixel logits, mean, log-variance)."""
        parts: tuple[Tensor, Tensor, Tensor] = self.vae(images, noise)
        return parts

    def networks(self, training_set: TrainingSet) -> Networks:
        """The averaged encoder and decoder, and the prior fitted to the training set."""
        average = self.average.module
        assert isinstance(average, Vae)
        prior = self.fit_prior(lambda images, _: average.encoder(images), training_set)
        generate, decode = (nn.Sequential(average.decoder, ToImages()) for _ in range(2))
        return {"generate": generate, "decode": decode, "encode": average.encoder, "prior": prior}

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The decoder rewritten, the encoder with stable rows."""
        generate, decode = fast_decoders(networks["generate"], networks["decode"], dtype)
        return networks | {"generate": generate, "decode": decode, "encode": stable_rows(networks["encode"])}


def fast_decoders(generate: nn.Module, decode: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Two sequences of the same `Decoder` and a last layer each, with the decoder rewritten once for both."""
    assert isinstance(generate, nn.Sequential)
    assert isinstance(decode, nn.Sequential)
    decoder = fast_decoder(decode[0], dtype)
    return nn.Sequential(decoder, generate[1]), nn.Sequential(decoder, decode[1])


def fast_decoder(decoder: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A `Decoder` rewritten: latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`."""
    assert isinstance(decoder, Decoder)
    dense, _, up1, _, up2, _, to_image = decoder.layers
    assert isinstance(dense, nn.Linear)
    assert isinstance(up1, nn.ConvTranspose2d)
    assert isinstance(up2, nn.ConvTranspose2d)
    assert isinstance(to_image, nn.ConvTranspose2d)
    # At stride 1 a transposed convolution is a convolution with the kernel rotated by 180 degrees.
    kernel = to_image.weight[:, 0].flip(1, 2)
    return fast_upsampler(dense, (up1, up2), kernel, to_image.bias, dtype, slopes=(1.0, 0.0))


FAMILY = Family("vae", VaeConfig, VaeLearner)

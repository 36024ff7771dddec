"""Variational autoencoder: networks, what ships of them, and the learner. Knows nothing of files or devices.

Source: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114.
"""

import copy

import torch
from torch import Tensor, nn

from training.config import VaeConfig
from training.families.family import TrainingSet
from training.families.variational import LATENT_DIM, VariationalLearner
from training.fast import Spread, ToPixels, Upsample, stable_rows, to_images


class Encoder(nn.Module):
    """Images to the parameters of q(z|x), a diagonal normal distribution."""

    def __init__(self, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),  # (B, 32, 14, 14)
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (B, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),  # (B, 3136)
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
        )
        self.mean = nn.Linear(128, latent_dim)
        self.log_variance = nn.Linear(128, latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1] to mean and log-variance, each `(B, latent)`."""
        features = self.features(images)
        return self.mean(features), self.log_variance(features)


class Decoder(nn.Module):
    """Latents to p(x|z), one Bernoulli parameter a pixel."""

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
        latents = mean + torch.exp(0.5 * log_variance) * noise  # the reparameterisation, eq. 10
        return self.decoder(latents), mean, log_variance


class VaeArchive(nn.Module):
    """What the archive holds: the capabilities `generate`, `decode` and `encode`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` drawn from N(0, I) to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.decoder(latents))

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.decoder(latents))

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` to mean and log-variance, each `(B, latent)`."""
        mean, log_variance = self.encoder(images)
        return mean, log_variance


class FittedVaeArchive(VaeArchive):
    """The same with the capability `prior`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, mixtures: nn.Module) -> None:
        super().__init__(encoder, decoder)
        self.mixtures = mixtures

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise `(B, latent + 1)` from N(0, I) and labels int64 `(B,)` to latents `(B, latent)`."""
        latents: Tensor = self.mixtures(noise, labels)
        return latents


class VaeLearner(VariationalLearner):
    """An encoder and a decoder that know no labels; the mixtures fitted to their latents do."""

    def __init__(self, config: VaeConfig, total_steps: int, classes: int) -> None:
        super().__init__(config, Vae(), total_steps, classes)

    def run(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """Images `(B, 1, 28, 28)` and noise `(B, latent)` to (pixel logits, mean, log-variance)."""
        parts: tuple[Tensor, Tensor, Tensor] = self.vae(images, noise)
        return parts

    def archive(self, training_set: TrainingSet | None = None) -> nn.Module:
        """The averaged weights as the module to export."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, Vae)
        if training_set is None:
            return VaeArchive(average.encoder, average.decoder).eval()

        def encode(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - it knows none
            parts: tuple[Tensor, Tensor] = average.encoder(images)
            return parts

        return FittedVaeArchive(average.encoder, average.decoder, self.fit_mixtures(encode, training_set)).eval()

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The decoder rewritten, the encoder in another memory format."""
        assert isinstance(archive, VaeArchive)
        assert isinstance(archive.decoder, Decoder)
        encoder, decoder = stable_rows(copy.deepcopy(archive.encoder)), fast_decoder(archive.decoder, dtype)
        if isinstance(archive, FittedVaeArchive):
            return FittedVaeArchive(encoder, decoder, copy.deepcopy(archive.mixtures)).eval()
        return VaeArchive(encoder, decoder).eval()


def fast_decoder(decoder: Decoder, dtype: torch.dtype) -> nn.Module:
    """The same decoder, rewritten: latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`."""
    dense, _, up1, _, up2, _, to_image = decoder.layers
    assert isinstance(dense, nn.Linear)
    assert isinstance(up1, nn.ConvTranspose2d)
    assert isinstance(up2, nn.ConvTranspose2d)
    assert isinstance(to_image, nn.ConvTranspose2d)
    # At stride 1 a transposed convolution is a convolution with the kernel turned by half a turn.
    kernel = to_image.weight[:, 0].flip(1, 2)
    spread = Spread(dense, 64, 7, 1.0, dtype)
    first = Upsample(up1, 0.0, dtype, parts=spread.parts)
    second = Upsample(up2, 0.0, dtype, input_scale=first.scale)
    return nn.Sequential(spread, first, second, ToPixels(kernel, to_image.bias, dtype, input_scale=second.scale))

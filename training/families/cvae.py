"""Conditional VAE: encoder and decoder know the digit. Knows nothing of files or devices.

Source: K. Sohn et al., "Learning Structured Output Representation using Deep Conditional Generative Models",
NeurIPS 2015.
"""

import copy

import torch
from torch import Tensor, nn

from training.config import CvaeConfig
from training.families.family import TrainingSet
from training.families.vae import Decoder, fast_decoder
from training.families.variational import LATENT_DIM, VariationalLearner
from training.fast import stable_rows, to_images

EMBEDDING_DIM = 16


class ConditionalEncoder(nn.Module):
    """Images and labels to the parameters of q(z|x, y), a diagonal normal distribution."""

    def __init__(self, classes: int, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),  # (B, 32, 14, 14)
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # (B, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),  # (B, 3136)
        )
        self.embedding = nn.Embedding(classes, EMBEDDING_DIM)
        self.features = nn.Sequential(nn.Linear(64 * 7 * 7 + EMBEDDING_DIM, 128), nn.ReLU())
        self.mean = nn.Linear(128, latent_dim)
        self.log_variance = nn.Linear(128, latent_dim)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1], labels int64 `(B,)` to mean and log-variance, `(B, latent)`."""
        features = self.features(torch.cat([self.convolutions(images), self.embedding(labels)], dim=1))
        return self.mean(features), self.log_variance(features)


class ConditionalDecoder(nn.Module):
    """A decoder that takes the label's embedding as further columns of the latent."""

    def __init__(self, embedding: nn.Embedding, decoder: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.decoder = decoder

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels int64 `(B,)` to pixel logits `(B, 1, 28, 28)`."""
        logits: Tensor = self.decoder(torch.cat([latents, self.embedding(labels)], dim=1))
        return logits


class Cvae(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self, classes: int, latent_dim: int = LATENT_DIM) -> None:
        super().__init__()
        self.encoder = ConditionalEncoder(classes, latent_dim)
        self.decoder = ConditionalDecoder(nn.Embedding(classes, EMBEDDING_DIM), Decoder(latent_dim + EMBEDDING_DIM))

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and standard normal `noise` `(B, latent)` to (pixel logits, mean, log-variance)."""
        mean, log_variance = self.encoder(images, labels)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        return self.decoder(latents, labels), mean, log_variance


class CvaeArchive(nn.Module):
    """What the archive holds: `generate`, `decode` and `encode`, all of them with labels."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels int64 `(B,)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.decoder(latents, labels))

    @torch.jit.export
    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels int64 `(B,)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.decoder(latents, labels))

    @torch.jit.export
    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` and labels int64 `(B,)` to mean and log-variance, each `(B, latent)`."""
        mean, log_variance = self.encoder(images, labels)
        return mean, log_variance


class FittedCvaeArchive(CvaeArchive):
    """The same with the capability `prior`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, mixtures: nn.Module) -> None:
        super().__init__(encoder, decoder)
        self.mixtures = mixtures

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise `(B, latent + 1)` from N(0, I) and labels int64 `(B,)` to latents `(B, latent)`."""
        latents: Tensor = self.mixtures(noise, labels)
        return latents


class CvaeLearner(VariationalLearner):
    """An encoder and a decoder that know labels."""

    conditional = True

    def __init__(self, config: CvaeConfig, total_steps: int, classes: int) -> None:
        super().__init__(config, Cvae(classes), total_steps, classes)

    def run(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images `(B, 1, 28, 28)`, labels `(B,)`, noise `(B, latent)` to (pixel logits, mean, log-variance)."""
        parts: tuple[Tensor, Tensor, Tensor] = self.vae(images, labels, noise)
        return parts

    def archive(self, training_set: TrainingSet | None = None) -> nn.Module:
        """The averaged weights as the module to export."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, Cvae)
        if training_set is None:
            return CvaeArchive(average.encoder, average.decoder).eval()
        mixtures = self.fit_mixtures(average.encoder, training_set)
        return FittedCvaeArchive(average.encoder, average.decoder, mixtures).eval()

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The decoder rewritten, the encoder in another memory format."""
        assert isinstance(archive, CvaeArchive)
        assert isinstance(archive.decoder, ConditionalDecoder)
        assert isinstance(archive.decoder.decoder, Decoder)
        encoder = stable_rows(copy.deepcopy(archive.encoder))
        embedding = copy.deepcopy(archive.decoder.embedding)
        decoder = ConditionalDecoder(embedding, fast_decoder(archive.decoder.decoder, dtype))
        if isinstance(archive, FittedCvaeArchive):
            return FittedCvaeArchive(encoder, decoder, copy.deepcopy(archive.mixtures)).eval()
        return CvaeArchive(encoder, decoder).eval()

"""Conditional GAN: both players know the digit. Knows nothing of files or devices.

Sources: M. Mirza, S. Osindero, "Conditional Generative Adversarial Nets", 2014, arXiv:1411.1784 (the label's
embedding beside the latent); T. Miyato, M. Koyama, arXiv:1802.05637 (the discriminator's projection).
"""

import copy

import torch
from torch import Tensor, nn

from training.config import CganConfig
from training.families.adversarial import AdversarialLearner
from training.families.discriminators import ProjectionDiscriminator
from training.families.family import TrainingSet
from training.families.gan import (
    LATENT_DIM,
    Generator,
    estimate_batch_norm,
    fast_generator,
    fold_batch_norm,
    statistics_latents,
)
from training.fast import stable_rows, to_images

EMBEDDING_DIM = 50


class ConditionalGenerator(nn.Module):
    """A generator that takes the label's embedding as further columns of the latent."""

    def __init__(self, embedding: nn.Embedding, generator: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.generator = generator

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels int64 `(B,)` to pixel logits `(B, 1, 28, 28)`."""
        logits: Tensor = self.generator(torch.cat([latents, self.embedding(labels)], dim=1))
        return logits


class CganArchive(nn.Module):
    """What the archive holds: the capabilities `generate` and `discriminate`, both with labels."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` from N(0, I), labels int64 `(B,)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.generator(latents, labels))

    @torch.jit.export
    def discriminate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] and the labels they claim, int64 `(B,)`, to raw logits `(B,)`."""
        logits: Tensor = self.discriminator(images, labels)
        return logits


class CganLearner(AdversarialLearner):
    """A generator and a discriminator that know labels."""

    latent_dim = LATENT_DIM
    conditional = True
    sampling = ("truncation",)

    def __init__(self, config: CganConfig, total_steps: int, classes: int) -> None:
        embedding = nn.Embedding(classes, EMBEDDING_DIM)
        generator = Generator(LATENT_DIM + EMBEDDING_DIM, batch_norm=config.batch_norm)
        super().__init__(
            config, ConditionalGenerator(embedding, generator), ProjectionDiscriminator(classes), total_steps
        )
        self.classes = classes

    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels `(B,)` to image logits `(B, 1, 28, 28)`."""
        logits: Tensor = self.generator(latents, labels)
        return logits

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] and labels `(B,)` to logits `(B,)`."""
        logits: Tensor = self.discriminator(images, labels)
        return logits

    def archive(self, training_set: TrainingSet | None = None) -> nn.Module:  # noqa: ARG002 - nothing is fitted
        """The averaged generator, its batch normalisation folded away, and the discriminator."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, ConditionalGenerator)
        latents = statistics_latents(average, self.latent_dim, self.config.seed)
        # Each class as often as any other.
        estimate_batch_norm(
            average, ((batch, torch.arange(len(batch), device=batch.device) % self.classes) for batch in latents)
        )
        assert isinstance(average.generator, Generator)
        generator = ConditionalGenerator(average.embedding, fold_batch_norm(average.generator))
        return CganArchive(generator, copy.deepcopy(self.discriminator)).eval()

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The generator rewritten, the discriminator in another memory format."""
        assert isinstance(archive, CganArchive)
        assert isinstance(archive.generator, ConditionalGenerator)
        assert isinstance(archive.generator.generator, Generator)
        embedding = copy.deepcopy(archive.generator.embedding)
        generator = ConditionalGenerator(embedding, fast_generator(archive.generator.generator, dtype))
        return CganArchive(generator, stable_rows(copy.deepcopy(archive.discriminator))).eval()

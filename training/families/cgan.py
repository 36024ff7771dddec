"""Conditional GAN: the generator and the discriminator take the label. The losses are in `adversarial`.

Sources: M. Mirza, S. Osindero, "Conditional Generative Adversarial Nets", 2014, arXiv:1411.1784 (the label's
embedding beside the latent); T. Miyato, M. Koyama, arXiv:1802.05637 (the discriminator's projection).
"""

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from training.archive import Networks
from training.config import NAME_PATTERN
from training.families import Family
from training.families.adversarial import BATCH_NORM, AdversarialConfig, AdversarialLearner
from training.families.batch_norm import estimate_batch_norm, fold_batch_norm, statistics_latents
from training.families.conditional import LabelConditioned
from training.families.discriminators import ProjectionDiscriminator
from training.families.gan import CHANNELS, LATENT_DIM, Generator, fast_generator
from training.fast_layers import ToImages, stable_rows
from training.learner import DataShape, TrainingSet

EMBEDDING_DIM = 50


class CganConfig(AdversarialConfig):
    """A generative adversarial network whose generator and discriminator take the label."""

    family: Literal["cgan"] = "cgan"
    name: str = Field("cgan", pattern=NAME_PATTERN)
    epochs: int = Field(18, ge=1, description="one generator step for each batch of the data")
    batch_size: int = Field(64, ge=2)
    batch_norm: bool = Field(True, description=BATCH_NORM)
    channels: int = Field(128, ge=1, description=CHANNELS)


class CganLearner(AdversarialLearner):
    """A generator and a discriminator that take labels."""

    latent_dim = LATENT_DIM
    conditional = True
    sampling = ("truncation",)
    chooses_contrast = True

    def __init__(self, config: CganConfig, data: DataShape, total_steps: int) -> None:
        embedding = nn.Embedding(data.classes, EMBEDDING_DIM)
        generator = Generator(LATENT_DIM + EMBEDDING_DIM, config.channels, batch_norm=config.batch_norm)
        discriminator = ProjectionDiscriminator(data.classes)
        super().__init__(config, LabelConditioned(embedding, generator), discriminator, data, total_steps)
        self.classes = data.classes

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged generator, its batch normalisation folded into its layers, and the discriminator."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, LabelConditioned)
        assert isinstance(average.network, Generator)
        latents = statistics_latents(average, LATENT_DIM)
        # All classes equally often.
        estimate_batch_norm(
            average, ((batch, torch.arange(len(batch), device=batch.device) % self.classes) for batch in latents)
        )
        generator = nn.Sequential(fold_batch_norm(average.network), ToImages())
        return {
            "generate": LabelConditioned(average.embedding, generator),
            "discriminate": self.discriminator,
        }

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The generator rewritten, the discriminator with stable rows."""
        images = networks["generate"]
        assert isinstance(images, LabelConditioned)
        assert isinstance(images.network, nn.Sequential)
        generator = nn.Sequential(fast_generator(images.network[0], dtype), images.network[1])
        return {
            "generate": LabelConditioned(images.embedding, generator),
            "discriminate": stable_rows(networks["discriminate"]),
        }


FAMILY = Family("cgan", CganConfig, CganLearner)

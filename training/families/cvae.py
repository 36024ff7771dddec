"""Conditional VAE: the encoder and the decoder take the label. The losses are in `variational`.

Source: K. Sohn et al., "Learning Structured Output Representation using Deep Conditional Generative Models",
NeurIPS 2015.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.archive import Networks
from training.config import NAME_PATTERN
from training.families import Family
from training.families.conditional import LabelConditioned
from training.families.vae import FEATURES, Decoder, fast_decoders, image_convolutions
from training.families.variational import LATENT_DIM, VariationalConfig, VariationalLearner, posterior_sample
from training.fast_layers import ToImages, stable_rows
from training.learner import DataShape, TrainingSet

EMBEDDING_DIM = 16


class CvaeConfig(VariationalConfig):
    """A variational autoencoder whose encoder and decoder take the label."""

    family: Literal["cvae"] = "cvae"
    name: str = Field("cvae", pattern=NAME_PATTERN)
    epochs: int = Field(20, ge=1)
    learning_rate: float = Field(2e-3, gt=0, description="at the start; it falls to 0 along a cosine")


class ConditionalEncoder(nn.Module):
    """Images and labels to the parameters of q(z|x, y), a diagonal normal distribution."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*image_convolutions())
        self.embedding = nn.Embedding(classes, EMBEDDING_DIM)
        self.features = nn.Sequential(nn.Linear(64 * 7 * 7 + EMBEDDING_DIM, FEATURES), nn.ReLU())
        self.mean = nn.Linear(FEATURES, LATENT_DIM)
        self.log_variance = nn.Linear(FEATURES, LATENT_DIM)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1], labels int64 `(B,)` to mean and log-variance, `(B, latent)`."""
        features = self.features(torch.cat([self.convolutions(images), self.embedding(labels)], dim=1))
        return self.mean(features), self.log_variance(features)


class Cvae(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = ConditionalEncoder(classes)
        self.decoder = LabelConditioned(nn.Embedding(classes, EMBEDDING_DIM), Decoder(LATENT_DIM + EMBEDDING_DIM))

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and standard normal `noise` `(B, latent)` to (pixel logits, mean, log-variance)."""
        mean, log_variance = self.encoder(images, labels)
        return self.decoder(posterior_sample(mean, log_variance, noise), labels), mean, log_variance


class CvaeLearner(VariationalLearner):
    """An encoder and a decoder that take labels."""

    conditional = True

    def __init__(self, config: CvaeConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(config, Cvae(data.classes), data, total_steps)

    def run(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images `(B, 1, 28, 28)`, labels `(B,)`, noise `(B, latent)` to (pixel logits, mean, log-variance)."""
        parts: tuple[Tensor, Tensor, Tensor] = self.vae(images, labels, noise)
        return parts

    def networks(self, training_set: TrainingSet) -> Networks:
        """The averaged encoder and decoder, and the prior fitted to the training set."""
        average = self.average.module
        assert isinstance(average, Cvae)
        prior = self.fit_prior(average.encoder, training_set)
        decoder = average.decoder
        generate, decode = (
            LabelConditioned(decoder.embedding, nn.Sequential(decoder.network, ToImages())) for _ in range(2)
        )
        return {"generate": generate, "decode": decode, "encode": average.encoder, "prior": prior}

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The decoder rewritten, the encoder with stable rows."""
        generate, decode = networks["generate"], networks["decode"]
        assert isinstance(generate, LabelConditioned)
        assert isinstance(decode, LabelConditioned)
        generate.network, decode.network = fast_decoders(generate.network, decode.network, dtype)
        return networks | {"encode": stable_rows(networks["encode"])}


FAMILY = Family("cvae", CvaeConfig, CvaeLearner)

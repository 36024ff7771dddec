"""Deterministic autoencoder, and a mixture fitted to its codes after training.

Source: P. Ghosh et al., "From Variational to Deterministic Autoencoders", 2020, arXiv:1903.12436. In place of the noise
and the KL divergence of a VAE, the norms of the codes and of the decoder's weights are kept small. The codes are not
trained to follow N(0, I): images of latents from it, beside those of the mixture, show what the KL divergence is for.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training import schedules
from training.archive import Networks
from training.average import Average
from training.config import NAME_PATTERN, TrainConfig
from training.families import Family
from training.families.mixtures import fit_to_codes
from training.families.vae import FEATURES, Decoder, fast_decoders, image_features
from training.families.variational import LATENT_DIM, reconstruction_error
from training.fast_layers import ToImages, stable_rows
from training.learner import DataShape, GradientLearner, TrainingSet


class AutoencoderConfig(TrainConfig):
    """A deterministic autoencoder."""

    family: Literal["autoencoder"] = "autoencoder"
    name: str = Field("autoencoder", pattern=NAME_PATTERN)
    epochs: int = Field(36, ge=1)
    learning_rate: float = Field(2e-3, gt=0, description="at the start; it falls to 0 along a cosine")
    # Both are weak: after two epochs the Frechet distance was 4.6 with a penalty of 0.01 and no decay, 5.0 with a
    # penalty of 0.1 and a decay of 0.1, 5.8 with 0.1 and 1, and 7.8 with 1 and 0.1.
    code_penalty: float = Field(0.01, ge=0, description="weight of half the squared norm of a code")
    decoder_decay: float = Field(0.01, ge=0, description="weight decay of the decoder, by AdamW")
    components: int = Field(10, ge=1, description="of the mixture fitted to the codes of each class")


def regularised_error(logits: Tensor, images: Tensor, codes: Tensor, code_penalty: float) -> Tensor:
    """Reconstruction error in nats plus `code_penalty` times half the squared norm of the code, averaged: a scalar.

    Shapes: `(B, 1, H, W)` twice and `(B, latent)`. The loss of section 3 of arXiv:1903.12436. In place of its third
    term, the norm of the decoder's weights, the optimiser decays these weights and biases.
    """
    return (reconstruction_error(logits, images) + code_penalty * half_squared_norm(codes)).mean()


def half_squared_norm(codes: Tensor) -> Tensor:
    """Half the squared Euclidean norm of codes `(B, latent)`: `(B,)`."""
    return codes.square().sum(dim=1) / 2


class Autoencoder(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(image_features(), nn.Linear(FEATURES, LATENT_DIM))
        self.decoder = Decoder()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1] to pixel logits of the same shape and codes `(B, latent)`."""
        codes = self.encoder(images)
        return self.decoder(codes), codes


class AutoencoderLearner(GradientLearner):
    """An encoder and a decoder without noise. Mixtures fitted to the codes of each class give images labels."""

    latent_dim = LATENT_DIM
    priors = ("fitted", "normal")
    sampling = ("temperature",)
    chooses_contrast = True

    def __init__(self, config: AutoencoderConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        self.classes = data.classes
        self.autoencoder = Autoencoder().to(memory_format=torch.channels_last)
        self.average = Average(self.autoencoder, config.ema_decay)
        parts = [
            {"params": self.autoencoder.encoder.parameters(), "weight_decay": 0.0},
            {"params": self.autoencoder.decoder.parameters(), "weight_decay": config.decoder_decay},
        ]
        self.optimizer = torch.optim.AdamW(parts, lr=config.learning_rate)
        self.schedule = schedules.cosine(self.optimizer, total_steps)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - it takes none
        """One gradient step on images `(1, B, 1, 28, 28)`; the losses of the batch, averaged over its images."""
        batch = images[0]
        with self.autocast():
            logits, codes = self.autoencoder(batch)
        logits, codes = logits.float(), codes.float()
        loss = regularised_error(logits, batch, codes, self.config.code_penalty)
        self.descend(loss, self.autoencoder)
        return {
            "reconstruction_error": reconstruction_error(logits.detach(), batch).mean(),
            "half_squared_norm": half_squared_norm(codes.detach()).mean(),
        }

    def networks(self, training_set: TrainingSet) -> Networks:
        """The averaged encoder and decoder, and the prior fitted to the codes of the training set."""
        average = self.average.module
        assert isinstance(average, Autoencoder)
        device = next(average.parameters()).device
        prior = fit_to_codes(
            lambda images, _: average.encoder(images.to(device)),
            training_set,
            self.classes,
            self.config.components,
            self.config.seed,
        )
        generate, decode = (nn.Sequential(average.decoder, ToImages()) for _ in range(2))
        return {"generate": generate, "decode": decode, "embed": average.encoder, "prior": prior}

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The decoder rewritten, the encoder with stable rows."""
        generate, decode = fast_decoders(networks["generate"], networks["decode"], dtype)
        return networks | {"generate": generate, "decode": decode, "embed": stable_rows(networks["embed"])}


FAMILY = Family("autoencoder", AutoencoderConfig, AutoencoderLearner)

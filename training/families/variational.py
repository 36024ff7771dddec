"""What variational autoencoders share: config, losses, training step, and the prior fitted to the latents.

Source: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training import schedules
from training.average import Average
from training.config import TrainConfig
from training.families.mixtures import Mixtures, fit_to_codes
from training.learner import DataShape, GradientLearner, TrainingSet

LATENT_DIM = 16


class VariationalConfig(TrainConfig):
    """Choices of the families with an encoder and a decoder."""

    # Not auto: bfloat16 makes networks of this size faster only on a CPU with AMX units.
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    epochs: int = Field(30, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="at the start; it falls to 0 along a cosine")
    beta: float = Field(1.0, ge=0, description="weight of the KL divergence")
    components: int = Field(10, ge=1, description="of the mixture fitted to the latents of each class")


def posterior_sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from q(z|x) for standard normal noise, `(B, latent)` all: the reparameterisation, eq. 10."""
    return mean + torch.exp(0.5 * log_variance) * noise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, summed over latent dimensions.

    Shapes: `(B, latent)` twice to `(B,)`. Source: appendix B of arXiv:1312.6114.
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)


def reconstruction_error(logits: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy in nats an image, summed over pixels.

    Shapes: `(B, 1, H, W)` twice to `(B,)`. On grey pixels this is no likelihood: its minimum over
    `logits` is the entropy of the pixels, not zero.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return losses.flatten(1).sum(dim=1)


def negative_elbo(logits: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """Reconstruction error plus beta times KL divergence, in nats, averaged over the batch: a scalar.

    Both terms are sums, over pixels and over latent dimensions. Averaging them instead amounts, with 784 pixels and
    16 latent dimensions, to beta = 784/16 = 49. Measured, that collapses: the KL divergence falls to 0.01 nats and
    every reconstruction is the same grey digit.
    """
    kl = kl_divergence(mean, log_variance)  # (B,)
    return (reconstruction_error(logits, images) + beta * kl).mean()


class VariationalLearner(GradientLearner):
    """An encoder with its decoder, their optimiser and the moving average of the weights, which is exported."""

    latent_dim = LATENT_DIM
    priors = ("fitted", "normal")
    sampling = ("temperature",)
    chooses_contrast = True

    def __init__(self, config: VariationalConfig, vae: nn.Module, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        self.classes = data.classes
        self.vae = vae.to(memory_format=torch.channels_last)  # a quarter less time per step on a CPU
        self.average = Average(self.vae, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=config.learning_rate)
        self.schedule = schedules.cosine(self.optimizer, total_steps)

    @abstractmethod
    def run(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images `(B, 1, 28, 28)`, labels `(B,)`, noise `(B, latent)` to (pixel logits, mean, log-variance)."""

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step on images `(1, B, 1, 28, 28)`; the losses of the batch, in nats an image."""
        batch = images[0]
        noise = torch.randn(len(batch), self.latent_dim, device=batch.device)
        with self.autocast():
            logits, mean, log_variance = self.run(batch, labels[0], noise)
        logits, mean, log_variance = logits.float(), mean.float(), log_variance.float()
        loss = negative_elbo(logits, batch, mean, log_variance, self.config.beta)
        self.descend(loss, self.vae)
        kl = kl_divergence(mean.detach(), log_variance.detach()).mean()
        return {"negative_elbo": loss.detach(), "kl_divergence": kl}

    def fit_prior(
        self, encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], training_set: TrainingSet
    ) -> Mixtures:
        """One mixture per class, fitted to one posterior sample of each training image.

        `encode` takes images `(B, 1, 28, 28)` in [0, 1] and labels `(B,)` to mean and log-variance. The samples are
        drawn from the seed of the run by a separate generator.
        """
        device = next(self.parameters()).device
        source = torch.Generator().manual_seed(self.config.seed)

        def sample(images: Tensor, labels: Tensor) -> Tensor:
            mean, log_variance = encode(images.to(device), labels.to(device))
            return posterior_sample(mean.cpu(), log_variance.cpu(), torch.randn(mean.shape, generator=source))

        return fit_to_codes(sample, training_set, self.classes, self.config.components, self.config.seed)

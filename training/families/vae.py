"""Variational autoencoder: networks, loss, step and export. Knows nothing of files or devices.

Source: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.average import Average
from training.config import VaeConfig
from training.families.family import Learner
from training.fast import Spread, ToPixels, Upsample, stable_rows, to_images

LATENT_DIM = 16


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


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, summed over latent dimensions.

    Shapes: `(B, latent)` twice to `(B,)`. Source: appendix B of arXiv:1312.6114.
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)


def reconstruction_error(logits: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy in nats an image, summed over pixels.

    Shapes: `(B, 1, 28, 28)` twice to `(B,)`. On grey pixels this is no likelihood: its minimum over
    `logits` is the entropy of the pixels, not zero.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return losses.flatten(1).sum(dim=1)


def negative_elbo(logits: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """Reconstruction error plus beta times KL divergence, in nats, averaged over the batch: a scalar.

    Both terms are sums, over pixels and over latent dimensions. Course notes often average them
    instead; with 784 pixels and 16 latent dimensions that amounts to beta = 784/16 = 49. Measured, it
    collapses: the KL divergence falls to 0.01 nats and every reconstruction is the same grey digit.
    """
    kl = kl_divergence(mean, log_variance)  # (B,)
    return (reconstruction_error(logits, images) + beta * kl).mean()


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


class VaeLearner(Learner):
    """A VAE, its optimiser and the moving average that ships."""

    batches_per_step = 1
    latent_dim = LATENT_DIM
    sampling = ("temperature",)

    def __init__(self, config: VaeConfig, total_steps: int) -> None:
        super().__init__()
        self.config = config
        self.vae = Vae()
        self.average = Average(self.vae, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=config.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / total_steps, 1)))
        )

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - unconditional
        """One gradient step on images `(1, B, 1, 28, 28)`; the losses of the batch, in nats an image."""
        batch = images[0]
        noise = torch.randn(len(batch), self.latent_dim, device=batch.device)
        with self.autocast():
            logits, mean, log_variance = self.vae(batch, noise)
        logits, mean, log_variance = logits.float(), mean.float(), log_variance.float()
        loss = negative_elbo(logits, batch, mean, log_variance, self.config.beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.vae)
        kl = kl_divergence(mean.detach(), log_variance.detach()).mean()
        return {"negative_elbo": loss.detach(), "kl_divergence": kl}

    def archive(self) -> nn.Module:
        """The averaged weights as the module to export."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, Vae)
        return VaeArchive(average.encoder, average.decoder).eval()

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The decoder rewritten, the encoder in another memory format."""
        assert isinstance(archive, VaeArchive)
        assert isinstance(archive.decoder, Decoder)
        encoder = stable_rows(copy.deepcopy(archive.encoder))
        return VaeArchive(encoder, fast_decoder(archive.decoder, dtype)).eval()


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

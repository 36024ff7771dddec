"""Generative adversarial network: networks, losses, step and export. Knows nothing of files or devices.

Sources: I. Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661 (the game and the
non-saturating loss); A. Radford et al., "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", 2015, arXiv:1511.06434 (batch normalisation in the generator).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.average import Average
from training.config import GanConfig
from training.families.family import Learner
from training.fast import Spread, ToPixels, Upsample, stable_rows, to_images

LATENT_DIM = 100


class Generator(nn.Module):
    """Latents to image logits.

    With `batch_norm`, the first three layers are followed by batch normalisation. It is a training
    device: `fold_batch_norm` absorbs it into those layers, and what ships has none.
    """

    def __init__(self, latent_dim: int = LATENT_DIM, *, batch_norm: bool = False) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(128) if batch_norm else nn.Identity()

        self.dense = nn.Linear(latent_dim, 128 * 7 * 7)
        self.dense_norm = norm()
        self.up1 = nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1)
        self.up1_norm = norm()
        self.up2 = nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1)
        self.up2_norm = norm()
        self.to_image = nn.Conv2d(128, 1, 7, padding=3)
        self.apply(initialize_glorot)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` to pixel logits `(B, 1, 28, 28)`; their sigmoid is the image."""
        x = self.dense(latents).view(-1, 128, 7, 7)
        x = functional.leaky_relu(self.dense_norm(x), 0.2)
        x = functional.leaky_relu(self.up1_norm(self.up1(x)), 0.2)  # (B, 128, 14, 14)
        x = functional.leaky_relu(self.up2_norm(self.up2(x)), 0.2)  # (B, 128, 28, 28)
        logits: Tensor = self.to_image(x)
        return logits


class Discriminator(nn.Module):
    """Images to one logit each: positive where it takes the image for a real one."""

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


def initialize_glorot(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, in place.

    With PyTorch's default initialisation the discriminator wins within one epoch (its loss falls to
    0.001) and the generator learns nothing. Source: X. Glorot, Y. Bengio, AISTATS 2010.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fold_batch_norm(generator: Generator) -> Generator:
    """A generator without batch normalisation that computes the same function in eval mode.

    The running statistics of `generator` are used; the given module stays as it is.
    """
    source = copy.deepcopy(generator).eval()
    folded = Generator(source.dense.in_features).eval()
    if isinstance(source.dense_norm, nn.BatchNorm2d):
        norm = source.dense_norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (128,)
        shift = norm.bias - norm.running_mean * scale
        # The dense layer's 6272 outputs are 128 channels of 49 pixels: one scale and shift a channel.
        scale, shift = scale.repeat_interleave(49), shift.repeat_interleave(49)
        source.dense.weight.data.mul_(scale[:, None])
        source.dense.bias.data.mul_(scale).add_(shift)
        for name in ("up1", "up2"):
            fused = fuse_conv_bn_eval(getattr(source, name), getattr(source, f"{name}_norm"), transpose=True)
            setattr(source, name, fused)
    for name in ("dense", "up1", "up2", "to_image"):
        getattr(folded, name).load_state_dict(getattr(source, name).state_dict())
    return folded


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)) in nats, averaged over the batch: a scalar.

    Shapes: `(B,)` twice. A discriminator that cannot tell the two apart has 2 log 2 = 1.386.
    """
    return functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(fake) in nats, averaged over the batch: a scalar. The non-saturating form of section 3."""
    return functional.softplus(-fake_logits).mean()


class GanArchive(nn.Module):
    """What the archive holds: the capabilities `generate` and `discriminate`."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        """Latents `(B, latent)` drawn from N(0, I) to images `(B, 1, 28, 28)` in [0, 1]."""
        return to_images(self.generator(latents))

    @torch.jit.export
    def discriminate(self, images: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] to raw logits `(B,)`."""
        logits: Tensor = self.discriminator(images)
        return logits


class GanLearner(Learner):
    """Both players, their optimisers and the moving average of the generator that ships."""

    latent_dim = LATENT_DIM
    sampling = ("truncation",)

    def __init__(self, config: GanConfig, total_steps: int) -> None:  # noqa: ARG002 - a GAN has no schedule
        super().__init__()
        self.config = config
        self.batches_per_step = config.discriminator_steps
        self.generator = Generator(batch_norm=config.batch_norm).to(memory_format=torch.channels_last)
        self.discriminator = Discriminator().to(memory_format=torch.channels_last)
        self.average = Average(self.generator, config.ema_decay)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=config.generator_learning_rate, betas=(0.5, 0.999)
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999)
        )

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - unconditional
        """A discriminator step on each batch of `(steps, B, 1, 28, 28)`, then one generator step."""
        # First half: the discriminator learns, the generator stands still. The steps share one batch of
        # fakes: making it is most of their cost.
        with torch.no_grad(), self.autocast():
            fake = torch.sigmoid(self.generator(self._latents(images[0])).float())
        for real in images:
            with self.autocast():
                real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
            loss_discriminator = discriminator_loss(real_logits.float(), fake_logits.float())
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            loss_discriminator.backward()  # type: ignore[no-untyped-call]
            self.discriminator_optimizer.step()

        # Second half: the generator learns, the discriminator is frozen.
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fake = torch.sigmoid(self.generator(self._latents(images[0])).float())
            fake_logits = self.discriminator(fake)
        loss_generator = generator_loss(fake_logits.float())
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss_generator.backward()  # type: ignore[no-untyped-call]
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        self.average.update_parameters(self.generator)
        return {"discriminator": loss_discriminator.detach(), "generator": loss_generator.detach()}

    def archive(self) -> nn.Module:
        """The averaged generator, its batch normalisation folded away, and the discriminator."""
        average = copy.deepcopy(self.average.module)
        assert isinstance(average, Generator)
        estimate_batch_norm(average, self.config.seed)
        return GanArchive(fold_batch_norm(average), copy.deepcopy(self.discriminator)).eval()

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The generator rewritten, the discriminator in another memory format."""
        assert isinstance(archive, GanArchive)
        assert isinstance(archive.generator, Generator)
        discriminator = stable_rows(copy.deepcopy(archive.discriminator))
        return GanArchive(fast_generator(archive.generator, dtype), discriminator).eval()

    def _latents(self, like: Tensor) -> Tensor:
        return torch.randn(len(like), self.latent_dim, device=like.device)


def fast_generator(generator: Generator, dtype: torch.dtype) -> nn.Module:
    """A generator without batch normalisation, rewritten: latents `(B, latent)` to logits `(B, 1, 28, 28)`."""
    spread = Spread(generator.dense, 128, 7, 0.2, dtype)
    up1 = Upsample(generator.up1, 0.2, dtype, parts=spread.parts)
    up2 = Upsample(generator.up2, 0.2, dtype, input_scale=up1.scale)
    last = generator.to_image
    return nn.Sequential(spread, up1, up2, ToPixels(last.weight[0], last.bias, dtype, input_scale=up2.scale))


def estimate_batch_norm(generator: Generator, seed: int, batches: int = 16) -> None:
    """Set the running statistics to those of the generator's own weights, in place.

    Averaged weights never saw a batch, so the statistics gathered in training are not theirs. The
    latents come from a generator of their own: training goes on as if this had not been called.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    device = next(generator.parameters()).device
    source = torch.Generator().manual_seed(seed)
    generator.train()
    with torch.no_grad():
        for _ in range(batches if norms else 0):
            generator(torch.randn(256, generator.dense.in_features, generator=source).to(device))
    generator.eval()

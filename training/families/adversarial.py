"""What generative adversarial networks share: config, losses, gradient penalty and training step.

Sources: I. Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661 (the game and the
non-saturating loss); L. Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
arXiv:1801.04406 (the gradient penalty R1).
"""

import copy
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.average import Average
from training.config import TrainConfig
from training.families.batch_norm import estimate_batch_norm, fold_batch_norm, statistics_latents
from training.fast_layers import ToImages
from training.learner import DataShape, Learner, TrainingSet, gradient_step

# The penalty is an expectation, which a quarter of each batch estimates as well as all of every fourth batch
# (T. Karras et al., arXiv:1912.04958, appendix B): its second derivatives cost more than the rest of a step.
PENALISED_SHARE = 4

# Descriptions of options that several families have.
BATCH_NORM = "in the generator; folded into its layers at export"
GRADIENT_PENALTY = "gamma of R1, on the discriminator at real images"
SHARED_FAKES = "the generator's step takes fakes of the discriminator's steps, which is faster, in place of fresh ones"


class AdversarialConfig(TrainConfig):
    """Choices of the families with a generator and a discriminator."""

    generator_learning_rate: float = Field(5e-4, gt=0)
    discriminator_learning_rate: float = Field(1e-3, gt=0)
    discriminator_steps: int = Field(1, ge=1, description="for each generator step")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="decay of the mean of squared gradients, of both networks")
    shared_fakes: bool = Field(True, description=SHARED_FAKES)
    gradient_penalty: float = Field(0.1, ge=0, description=GRADIENT_PENALTY)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)) in nats, averaged over the batch: a scalar.

    Shapes: `(B,)` twice. A discriminator that cannot tell the two apart has 2 log 2 = 1.386.
    """
    return functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(fake) in nats, averaged over the batch: a scalar. The non-saturating form of section 3."""
    return functional.softplus(-fake_logits).mean()


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """R1: the squared norm of the logits' gradient at real images, averaged over the batch: a scalar.

    `discriminate` takes images `(B, 1, H, W)` to logits `(B,)`, each of its own image only. Eq. 9 of arXiv:1801.04406
    without its factor gamma / 2.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


class AdversarialLearner(Learner):
    """Both networks, their optimisers and the moving average of the generator, which is exported.

    Both take labels in a conditional family, and none in others.
    """

    latent_dim: int

    def __init__(
        self,
        config: AdversarialConfig,
        generator: nn.Module,
        discriminator: nn.Module,
        data: DataShape,
        total_steps: int,
    ) -> None:
        super().__init__(data)
        self.config = config
        self.batches_per_step = config.discriminator_steps
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self.average = Average(self.generator, config.ema_decay)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=config.generator_learning_rate, betas=(0.5, config.adam_beta2)
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, config.adam_beta2)
        )

        def falling(step: int) -> float:
            return min(1.0, 2 * (1 - min(step / total_steps, 1.0)))

        # Both rates are constant for half of the run and then fall linearly to 0.
        self.generator_schedule = torch.optim.lr_scheduler.LambdaLR(self.generator_optimizer, falling)
        self.discriminator_schedule = torch.optim.lr_scheduler.LambdaLR(self.discriminator_optimizer, falling)

    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels `(B,)` to image logits `(B, 1, H, W)`."""
        logits: Tensor = self.generator(latents, labels) if self.conditional else self.generator(latents)
        return logits

    def discriminate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] and labels `(B,)` to logits `(B,)`."""
        logits: Tensor = self.discriminator(images, labels) if self.conditional else self.discriminator(images)
        return logits

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """A discriminator step on each batch of `(steps, B, 1, H, W)`, then one generator step.

        Fakes are made for the labels of the first batch. With `shared_fakes` all steps take those of the generator's:
        computing and backpropagating them is nearly all of their cost.
        """
        fake = self._fakes(labels[0])

        # First half: the discriminator learns, the generator is fixed.
        for real, real_labels in zip(images, labels, strict=True):
            shown = fake.detach()
            if not self.config.shared_fakes:
                with torch.no_grad():
                    shown = self._fakes(labels[0])
            loss_discriminator = self._discriminator_loss(real, real_labels, shown, labels[0])
            gradient_step(self.discriminator_optimizer, loss_discriminator)

        # Second half: the generator learns, the discriminator is fixed.
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fake_logits = self.discriminate(fake, labels[0])
        loss_generator = generator_loss(fake_logits.float())
        gradient_step(self.generator_optimizer, loss_generator)
        self.discriminator.requires_grad_(True)

        self.generator_schedule.step()
        self.discriminator_schedule.step()
        self.average.update_parameters(self.generator)
        return {"discriminator": loss_discriminator.detach(), "generator": loss_generator.detach()}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged generator, its batch normalisation folded into its layers, and the discriminator.

        A family whose generator takes labels overrides this method.
        """
        average = copy.deepcopy(self.average.module)
        estimate_batch_norm(average, ((latents,) for latents in statistics_latents(average, self.latent_dim)))
        return {"generate": nn.Sequential(fold_batch_norm(average), ToImages()), "discriminate": self.discriminator}

    def _fakes(self, labels: Tensor) -> Tensor:
        latents = torch.randn(len(labels), self.latent_dim, device=labels.device)
        with self.autocast():
            logits = self.generate(latents, labels)
        return torch.sigmoid(logits.float())

    def _discriminator_loss(self, real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> Tensor:
        with self.autocast():
            logits = self.discriminate(torch.cat([real, fake]), torch.cat([real_labels, fake_labels]))
        loss = discriminator_loss(*logits.float().chunk(2))
        if self.config.gradient_penalty > 0:
            # In float32: the squared gradients are as small as the rounding errors of bfloat16.
            share = max(1, len(real) // PENALISED_SHARE)
            penalty = gradient_penalty(lambda some: self.discriminate(some, real_labels[:share]), real[:share])
            loss = loss + self.config.gradient_penalty / 2 * penalty
        return loss

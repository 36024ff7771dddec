"""What classifiers share: config, training step and calibrated probabilities.

Source of the calibration: C. Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599.
"""

import copy
import math

import torch
from pydantic import Field
from scipy import optimize
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.average import Average
from training.config import TrainConfig
from training.data import to_unit_range
from training.evaluation.lenet5 import distort
from training.families.batch_norm import estimate_batch_norm
from training.learner import DataShape, GradientLearner, TrainingSet

BATCH = 256
STATISTICS_IMAGES = 4096
LARGEST_TEMPERATURE = 20.0  # the smallest is its inverse


class ClassificationConfig(TrainConfig):
    """Choices of the families that classify."""

    ema_decay: float = Field(0.998, ge=0, lt=1, description="per step, of the exported weights; lower at first")
    learning_rate: float = Field(3e-3, gt=0, description="at its peak, of one cycle over the run")
    weight_decay: float = Field(1e-2, ge=0)
    held_out: float = Field(
        0.08, gt=0, lt=1, description="share of the training images, the last ones, that only set the temperature"
    )

    def held_out_images(self, count: int) -> int:
        """How many of `count` training images are held out."""
        return max(1, int(count * self.held_out))

    def learned_images(self, count: int) -> int:
        """How many of `count` training images, the first ones, a run learns from."""
        used = super().learned_images(count)
        return used - self.held_out_images(used)


class Calibrated(nn.Module):
    """A classifier that gives probabilities: softmax(logits / temperature), eq. 9 of arXiv:1706.04599."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] to probabilities `(B, classes)`."""
        return torch.softmax(self.network(images) / self.temperature, dim=1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that maximises the likelihood of labels int64 `(N,)` under softmax(logits / temperature).

    Logits are `(N, classes)`. Above 1 the classifier was too confident. The predicted class does not depend on it.
    Where all predictions are right the likelihood has no maximum, and the temperature is small: 1 / 20 or more.
    """

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    bound = math.log(LARGEST_TEMPERATURE)
    found = optimize.minimize_scalar(negative_log_likelihood, bounds=(-bound, bound), method="bounded")
    return math.exp(found.x)


class ClassificationLearner(GradientLearner):
    """A classifier with its optimiser and the moving average of the weights, which is exported."""

    def __init__(self, config: ClassificationConfig, network: nn.Module, data: DataShape, total_steps: int) -> None:
        """`network` takes images `(B, 1, H, W)` in [0, 1] to logits `(B, classes)`."""
        super().__init__(data)
        self.config = config
        self.network = network.to(memory_format=torch.channels_last)
        self.average = Average(self.network, config.ema_decay)
        rate = config.learning_rate
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=total_steps)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step on distorted images `(1, B, 1, H, W)`: cross-entropy in nats, and share of errors."""
        # The maps are drawn on the CPU.
        distorted = distort(images[0].cpu(), torch.default_generator).to(images.device)
        with self.autocast():
            logits = self.network(distorted)
        loss = functional.cross_entropy(logits.float(), labels[0])
        self.descend(loss, self.network)
        errors = (logits.argmax(dim=1) != labels[0]).float().mean()
        return {"cross_entropy": loss.detach(), "errors": errors}

    @torch.no_grad()
    def networks(self, training_set: TrainingSet) -> Networks:
        """The averaged network, with the temperature of the last images of the training set."""
        images, labels = training_set
        held_out = self.config.held_out_images(len(images))
        device = next(self.parameters()).device
        network = copy.deepcopy(self.average.module)
        seen = images[:-held_out][:STATISTICS_IMAGES]
        estimate_batch_norm(network, ((to_unit_range(rows.to(device)),) for rows in torch.split(seen, BATCH)))
        batches = torch.split(images[-held_out:], BATCH)
        logits = torch.cat([network(to_unit_range(rows.to(device))).cpu() for rows in batches])
        return {"classify": Calibrated(network, fit_temperature(logits, labels[-held_out:].cpu()))}

"""A LeNet-5 that names the class of an image: the network and how it learns. Knows no files and no metrics.

Source: Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section II, with the
rectified units and maximum pooling of today. Its second dense layer gives the features that quality is measured in.
"""

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.average import Average
from training.data import Dataset, epoch_batches, to_unit_range

log = logging.getLogger(__name__)

FEATURES = 84
BATCH = 128
LEARNING_RATE = 3e-3
EMA_DECAY = 0.998


class LeNet5(nn.Module):
    """Images `(B, 1, 28, 28)` in [0, 1] to one logit a class."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.dense1 = nn.Linear(16 * 5 * 5, 120)
        self.dense2 = nn.Linear(120, FEATURES)
        self.to_logits = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] to what the last layer sees, `(B, 84)`, none negative."""
        x = functional.max_pool2d(functional.relu(self.conv1(images)), 2)  # (B, 6, 14, 14)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)  # (B, 16, 5, 5)
        return functional.relu(self.dense2(functional.relu(self.dense1(x.flatten(1)))))

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, 28, 28)` in [0, 1] to logits `(B, classes)`."""
        logits: Tensor = self.to_logits(self.features(images))
        return logits


def train_classifier(dataset: Dataset, epochs: int, seed: int) -> LeNet5:
    """A classifier of the data's classes, learnt from its training images on the CPU, in eval mode.

    What is given is the moving average of the weights after the last epoch: the test images choose nothing.
    Leaves PyTorch's global random state alone. Raises TooFewImages when there is not one batch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LeNet5(len(dataset.classes))
    source = torch.Generator().manual_seed(seed)
    average = Average(network, EMA_DECAY)
    images, labels = dataset.train_images, dataset.train_labels
    size = max(min(BATCH, len(images)), 1)
    steps = max(len(images) // size, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        total = torch.zeros(())
        for batch in epoch_batches(len(images), size, 1, seed, epoch):
            rows = batch[0]
            loss = functional.cross_entropy(network(distort(to_unit_range(images[rows]), source)), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.detach()
        log.info("epoch %d/%d: cross-entropy %.4f nats", epoch + 1, epochs, float(total) / steps)
    learnt = average.module
    assert isinstance(learnt, LeNet5)
    return learnt.eval()


def distort(images: Tensor, source: torch.Generator) -> Tensor:
    """Each image turned by up to 12 degrees, scaled by up to 10 %, sheared by up to 0.15, moved by up to 2 pixels.

    Shapes: `(B, 1, H, W)` in [0, 1] to the same; bilinear, black from outside.
    """
    count, _, _, width = images.shape
    turn, scale, shear, right, down = (2 * torch.rand(5, count, generator=source) - 1).unbind()
    angle, scale, shear = turn * math.radians(12), 1 + 0.1 * scale, 0.15 * shear
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # affine_grid counts from -1 to 1 across the image: a pixel is 2 / width.
    moves = torch.stack([right, down], dim=1) * 2 * 2 / width
    maps = torch.stack([torch.stack([cos, shear - sin], 1), torch.stack([sin, cos], 1)], 1)  # (B, 2, 2)
    grid = functional.affine_grid(torch.cat([maps, moves[:, :, None]], 2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)

"""A LeNet-5 image classifier and its training. Its second dense layer gives the features of the quality figures.

Source: Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section II, with rectified
linear units and maximum pooling.
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
ROWS = 1000  # of a batch without gradients
LEARNING_RATE = 3e-3
EMA_DECAY = 0.998


class LeNet5(nn.Module):
    """Images `(B, 1, H, W)` in [0, 1] to one logit per class. For 28x28 pixels the layers have the published sizes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.dense1 = nn.Linear(16 * 5 * 5, 120)
        self.dense2 = nn.Linear(120, FEATURES)
        self.to_logits = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] to the inputs of the last layer, `(B, 84)`, not negative."""
        x = functional.max_pool2d(functional.relu(self.conv1(images)), 2)  # (B, 6, H / 2, W / 2)
        # For 28x28 pixels these are windows of 2x2.
        x = functional.adaptive_max_pool2d(functional.relu(self.conv2(x)), 5)  # (B, 16, 5, 5)
        return functional.relu(self.dense2(functional.relu(self.dense1(x.flatten(1)))))

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] to logits `(B, classes)`."""
        logits: Tensor = self.to_logits(self.features(images))
        return logits


def train_classifier(dataset: Dataset, epochs: int, seed: int, *, distorted: bool = True) -> LeNet5:
    """A classifier trained on the training images on the CPU, in eval mode; with `distorted` on random distortions.

    Its weights are the moving average after the last epoch: test images are not used. PyTorch's global random state is
    not changed. Raises TooFewImages when there are no images.
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
            pixels = to_unit_range(images[rows])
            logits = network(distort(pixels, source) if distorted else pixels)
            loss = functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.detach()
        log.info("epoch %d/%d: cross-entropy %.4f nats", epoch + 1, epochs, float(total) / steps)
    averaged = average.module
    assert isinstance(averaged, LeNet5)
    return averaged.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 images `(N, 1, H, W)` whose likeliest class is their label, int64 `(N,)`."""
    found = torch.cat([network(to_unit_range(batch)).argmax(dim=1) for batch in torch.split(images, ROWS)])
    return float((found == labels).double().mean())


def distort(images: Tensor, source: torch.Generator) -> Tensor:
    """Random rotation to 12 degrees, scaling by 10 %, shear of 0.15 and translation by 2 pixels, at most.

    Images `(B, 1, H, W)` in [0, 1] to the same, bilinear with black padding.
    """
    count, _, _, width = images.shape
    turn, scale, shear, right, down = (2 * torch.rand(5, count, generator=source) - 1).unbind()
    angle, scale, shear = turn * math.radians(12), 1 + 0.1 * scale, 0.15 * shear
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # Coordinates of affine_grid go from -1 to 1 across the image: a pixel is 2 / width.
    moves = torch.stack([right, down], dim=1) * 2 * 2 / width
    maps = torch.stack([torch.stack([cos, shear - sin], 1), torch.stack([sin, cos], 1)], 1)  # (B, 2, 2)
    grid = functional.affine_grid(torch.cat([maps, moves[:, :, None]], 2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)

"""Data sets in memory, and the order in which rows are trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.checkpoints.manifest import check_classes

# Channels, height and width of the images of every data set.
IMAGE_SHAPE = (1, 28, 28)
DIGITS = tuple(str(digit) for digit in range(10))


class DataUnavailable(Exception):
    """No source has files with the pinned digests, or the data cannot be used for training."""


class TooFewImages(ValueError):
    """There are fewer images than one batch holds, or the processes cannot share a batch equally."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images in memory, and the digest that identifies them.

    Label i is the class `classes[i]`. `box` is the longer side of each image's ink, in pixels, for images normalized
    as the MNIST authors describe; None for images that were only resized.
    """

    name: str
    digest: str
    train_images: Tensor  # uint8 (N, 1, H, W)
    train_labels: Tensor  # int64 (N,)
    test_images: Tensor  # uint8 (M, 1, H, W)
    test_labels: Tensor  # int64 (M,)
    classes: tuple[str, ...] = DIGITS
    box: int | None = 20

    def __post_init__(self) -> None:
        """Raises DataUnavailable for class names that a manifest would refuse after training."""
        try:
            check_classes(self.classes)
        except ValueError as error:
            raise DataUnavailable(f"{self.name}: {error}") from error


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images of any shape to float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def batches(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of tensors of equal length in order, `size` at a time."""
    return zip(*(torch.split(each, size) for each in tensors), strict=True)


def epoch_batches(count: int, batch_size: int, streams: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Row numbers of one epoch: `count // batch_size` batches, int64 `(streams, batch_size)`.

    Each stream is an independent permutation, determined by seed and epoch; its last rows that do not fill a batch
    are dropped. Raises TooFewImages when there is not one batch.
    """
    if count < batch_size:
        raise TooFewImages(f"{count} images do not fill one batch of {batch_size}")
    # The largest seeds of a config would overflow the 64 bits of a PyTorch seed.
    source = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    orders = torch.stack([torch.randperm(count, generator=source) for _ in range(streams)])
    for start in range(0, count - batch_size + 1, batch_size):
        yield orders[:, start : start + batch_size]

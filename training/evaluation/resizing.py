"""Images at another size."""

import torch
from torch import Tensor
from torch.nn import functional

from training.data import to_unit_range
from training.generation import quantised

BATCH = 5_000

Shape = tuple[int, int, int]  # channels, height, width


def resized(images: Tensor, shape: Shape) -> Tensor:
    """uint8 images `(N, 1, H, W)` to float32 images of another shape in [0, 1]: means over areas."""
    pixels = to_unit_range(images)
    return pixels if pixels.shape[1:] == shape else functional.interpolate(pixels, shape[1:], mode="area")


def area_averages(images: Tensor, shape: Shape) -> Tensor:
    """uint8 images `(N, 1, H, W)` to uint8 images of another shape: means over areas, rounded."""
    if images.shape[1:] == shape:
        return images
    return torch.cat([quantised(resized(batch, shape)) for batch in torch.split(images, BATCH)])


def bicubic(images: Tensor, shape: Shape) -> Tensor:
    """uint8 images `(N, 1, h, w)` to larger uint8 images by bicubic interpolation, clamped to [0, 1]."""
    batches = [
        functional.interpolate(to_unit_range(batch), shape[1:], mode="bicubic", align_corners=False).clamp(0, 1)
        for batch in torch.split(images, BATCH)
    ]
    return torch.cat([quantised(batch) for batch in batches])


def size_text(shape: Shape) -> str:
    """A shape in words, such as `28x28`."""
    return f"{shape[1]}x{shape[2]}"

"""Resampling of grey images."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatPixels = NDArray[np.float32]


def resize(
    pixels: FloatPixels,
    height: int,
    width: int,
    method: Image.Resampling = Image.Resampling.BOX,
    box: tuple[int, int, int, int] | None = None,
) -> FloatPixels:
    """Resample an image (H, W), or its `box` (left, top, right, bottom), to (height, width)."""
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method, box=box)
    return np.asarray(resized, dtype=np.float32)


def block_means(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The means of blocks of factor x factor pixels, halves rounded up.

    Shapes: `(..., H, W)` to `(..., H / factor, W / factor)`; the factor must divide the sides.
    """
    *others, height, width = images.shape
    blocks = images.reshape(*others, height // factor, factor, width // factor, factor)
    area = factor**2
    means: NDArray[np.uint8] = ((2 * blocks.sum(axis=(-3, -1)) + area) // (2 * area)).astype(np.uint8)
    return means


def enlarge(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """An image (H, W) enlarged by bicubic interpolation, as Pillow and most other programs do it."""
    height, width = image.shape
    return np.asarray(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def reduce(pixels: FloatPixels, side: int) -> FloatPixels:
    """Resample an image (H, W) so that its longer side is at most `side`."""
    height, width = pixels.shape
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    return resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))

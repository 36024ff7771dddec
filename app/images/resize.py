"""Resampling of grey images."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]


def resize(
    pixels: Pixels,
    height: int,
    width: int,
    method: Image.Resampling = Image.Resampling.BOX,
    box: tuple[int, int, int, int] | None = None,
) -> Pixels:
    """Resample an image (H, W), or its `box` (left, top, right, bottom), to (height, width)."""
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method, box=box)
    return np.asarray(resized, dtype=np.float32)


def reduce(pixels: Pixels, side: int) -> Pixels:
    """Resample an image (H, W) so that its longer side is at most `side`."""
    height, width = pixels.shape
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    return resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))

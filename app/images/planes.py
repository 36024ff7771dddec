"""Planes of pixels: resampling, and what squares and boxes show. Knows nothing of what they depict."""

from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)


def resize(
    pixels: Pixels,
    height: int,
    width: int,
    method: Image.Resampling = Image.Resampling.BOX,
    bounds: tuple[int, int, int, int] | None = None,
) -> Pixels:
    """Resample `bounds` (left, top, right, bottom) of the pixels, or all of them."""
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method, box=bounds)
    return np.asarray(resized, dtype=np.float32)


def border(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """The outermost pixels of (h, w), each once."""
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def bounds(mask: Mask) -> tuple[slice, slice]:
    """The rows and the columns of the smallest box around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def smoothed(pixels: Pixels) -> Pixels:
    """The mean of each pixel and its eight neighbours."""
    squares = sliding_window_view(np.pad(pixels, 1, mode="edge"), (3, 3))
    mean: Pixels = squares.mean(axis=(2, 3), dtype=np.float32)
    return mean


def largest(pixels: NDArray[Number], side: int) -> NDArray[Number]:
    """The largest value of each square of side x side inside (h, w): (h - side + 1, w - side + 1)."""
    in_columns = sliding_window_view(pixels, side, 0).max(axis=-1)
    largest: NDArray[Number] = sliding_window_view(in_columns, side, 1).max(axis=-1)
    return largest


def dilate(pixels: NDArray[Number], reach: int) -> NDArray[Number]:
    """The largest value of each square of 2 reach + 1 around a pixel."""
    return largest(np.pad(pixels, reach, mode="edge"), 2 * reach + 1)

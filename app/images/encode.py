"""Images to files: PNG, grid, animation, NumPy archive. The same images always give the same bytes."""

import math
import zipfile
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images.png import animation, still

Pixels = NDArray[np.uint8]


def to_uint8(images: NDArray[np.float32]) -> Pixels:
    """Images of any shape in [0, 1] to 8 bits: floor(255 x + 1/2), so k / 255 gives k.

    Values outside [0, 1] are clipped. Raises ValueError for NaN.
    """
    if np.isnan(images).any():
        raise ValueError("an image has pixels that are not numbers")
    scaled = np.clip(images, 0, 1) * np.float32(255) + np.float32(0.5)
    levels: Pixels = np.floor(scaled).astype(np.uint8)
    return levels


def png(image: Pixels, *, scale: int = 1) -> bytes:
    """An image (H, W) as an 8-bit grey PNG, each pixel a square of scale x scale."""
    return still(image, scale)


def grid(images: Pixels, columns: int | None = None) -> Pixels:
    """Images (N, H, W) side by side in one image (rows * H, columns * W), row by row.

    columns: ceil(sqrt N) unless given. Cells without an image are black. Raises ValueError for no images or no columns.
    """
    count, height, width = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    if count < 1 or columns < 1:
        raise ValueError("a grid has at least one image and one column")
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width), dtype=np.uint8)
    cells[:count] = images
    return cells.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def apng(images: Pixels, *, scale: int = 1, frame_ms: int = 80) -> bytes:
    """Images (N, H, W) as an animated PNG of N frames, `frame_ms` milliseconds each, that repeats forever.

    One image gives a still PNG. Raises ValueError for no images.
    """
    if len(images) == 1:
        return still(images[0], scale)
    return animation(images, scale, frame_ms)


def npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays by name as an `.npz` archive for `numpy.load`, in the order of their names.

    Raises ValueError for arrays of Python objects.
    """
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in sorted(arrays.items()):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            # Unlike numpy.savez, whose entries depend on the time and the operating system.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=1)
    return file.getvalue()

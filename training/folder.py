"""A folder of labelled images as a data set: one folder of images a class. Knows nothing of models.

An image becomes a row as an upload does that the service only resizes: its EXIF orientation is applied, colour is
the luma of ITU-R BT.601, what is transparent is black, and it is resized to 28x28 with antialiasing, whatever its
aspect. Nothing is inverted: images in which ink is dark on light are learned, and generated, dark on light.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from training.data import Dataset, DataUnavailable

SIDE = 28
# This share of the images is for testing. Which ones, the digests of their files say: adding images moves none of
# those that were there, and a copy of an image is always on its side.
TEST_SHARE = 0.1
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B"}


@dataclass(frozen=True)
class _Labelled:
    """An image file, read."""

    digest: str
    label: int
    row: NDArray[np.uint8]  # (28, 28)


def load_folder(folder: Path) -> Dataset:
    """The images in the folders of a folder, which name their classes, in the order of their digests.

    Files that no image format claims by their name, and hidden ones, are left out. Raises DataUnavailable where there
    is no such folder, a class without images to learn from, or a file that cannot be read as an image.
    """
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is not a folder")
    classes = sorted((path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."), key=_order)
    if not classes:
        raise DataUnavailable(f"{folder} holds no folders: it takes one of images for each class")
    files = [(path, label) for label, name in enumerate(classes) for path in _image_files(folder / name)]
    with ThreadPoolExecutor() as threads:
        read = threads.map(lambda file: _read(*file), files)
        images = list(tqdm(read, total=len(files), desc=f"reading {folder.name}", mininterval=1.0, leave=False))
    images.sort(key=lambda image: (image.digest, image.label))
    tested = [image for image in images if int(image.digest[:8], 16) < TEST_SHARE * 2**32] or images[:1]
    kept = {id(image) for image in tested}
    learned = [image for image in images if id(image) not in kept]
    for label, name in enumerate(classes):
        if not any(image.label == label for image in learned):
            raise DataUnavailable(f"{folder / name} holds no images to learn from; about a tenth are kept for testing")
    lines = "".join(f"{image.digest}  {classes[image.label]}\n" for image in images)
    digest = hashlib.sha256(f"{SIDE}x{SIDE} grey\n{lines}".encode()).hexdigest()
    return Dataset(folder.resolve().name, digest, *_tensors(learned), *_tensors(tested), tuple(classes), None)


def read_row(content: bytes) -> NDArray[np.uint8]:
    """An image file to a row, uint8 `(28, 28)`. Raises ValueError, OSError and what else decoders raise."""
    with Image.open(BytesIO(content)) as opened:
        if opened.mode not in MODES:
            raise ValueError(f"pixels of mode {opened.mode} are not supported")
        opened.draft("L", opened.size)  # a JPEG's luma is what it holds: it is not made of colours again
        image = ImageOps.exif_transpose(opened)
    transparent = image.has_transparency_data
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)
        opaque = grey != image.info["transparency"] if transparent else True
        luminance = grey.astype(np.float32) / np.float32(65535) * opaque
    elif transparent:
        colour = image.convert("RGBA")
        luminance = _unit(colour.convert("L")) * _unit(colour.getchannel("A"))
    else:
        colour = image if image.mode in {"1", "L", "RGB"} else image.convert("RGB")
        luminance = _unit(colour.convert("L"))
    if luminance.shape != (SIDE, SIDE):
        resized = Image.fromarray(luminance).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        luminance = np.clip(np.asarray(resized, dtype=np.float32), 0, 1)
    row: NDArray[np.uint8] = np.floor(luminance * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return row


def _read(path: Path, label: int) -> _Labelled:
    content = path.read_bytes()
    try:
        row = read_row(content)
    except Exception as error:  # a decoder that meets broken bytes raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataUnavailable(f"{path} cannot be read as an image: {reason}") from error
    return _Labelled(hashlib.sha256(content).hexdigest(), label, row)


def _image_files(folder: Path) -> Iterator[Path]:
    suffixes = Image.registered_extensions()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name[0] != "." and path.suffix.lower() in suffixes:
            yield path


def _order(name: str) -> list[tuple[bool, int, str]]:
    """Numbers in names by value, so that 10 comes after 9."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def _unit(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _tensors(images: list[_Labelled]) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(np.stack([image.row for image in images]))[:, None]
    return rows, torch.tensor([image.label for image in images])

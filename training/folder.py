"""A folder of labelled images as a dataset, with one subfolder for each class.

Images are prepared as the service prepares uploads without normalization: the EXIF orientation is applied, colour
becomes the luma of ITU-R BT.601, transparent becomes black, and the image is resized to 28x28 with antialiasing,
whatever its aspect ratio. Nothing is inverted: a model of images dark on light generates images dark on light.
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
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor
from tqdm import tqdm

from training.config import check_text
from training.data import IMAGE_SHAPE, Dataset, DataUnavailable

SIDE = IMAGE_SHAPE[1]
# The share of test images. An image's digest decides on its split, so adding images moves no others, and copies of an
# image are in the same split.
TEST_SHARE = 0.1
MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Formats by their first bytes. The other formats of Pillow are many, and some start programs or read other files.
FORMATS = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}
MAX_BYTES = 2**26
MAX_PIXELS = 2**24


@dataclass(frozen=True)
class _Labelled:
    """A decoded image file."""

    digest: str
    label: int
    row: NDArray[np.uint8]  # (28, 28)


def load_folder(folder: Path) -> Dataset:
    """Load the images of a folder's subfolders, which are named for their classes, in the order of their digests.

    Hidden files and files without an image format's suffix are skipped. Raises DataUnavailable for a missing folder, a
    name that is not UTF-8, a class without training images, and a file that cannot be decoded.
    """
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is not a folder")
    classes = sorted((path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."), key=_order)
    if not classes:
        raise DataUnavailable(f"{folder} has no subfolders; put the images of each class into one")
    for path in (folder.resolve(), *(folder / name for name in classes)):
        try:
            check_text(path.name)
        except ValueError as error:
            raise DataUnavailable(f"the name of {path} {error}") from error
    files = [(path, label) for label, name in enumerate(classes) for path in _image_files(folder / name)]
    with ThreadPoolExecutor() as threads:
        read = threads.map(lambda file: _read(*file), files)
        images = list(tqdm(read, total=len(files), desc=f"reading {folder.name}", mininterval=1.0, leave=False))
    images.sort(key=lambda image: (image.digest, image.label))
    held_out = {image.digest for image in images if int(image.digest[:8], 16) < TEST_SHARE * 2**32}
    held_out = held_out or {image.digest for image in images[:1]}
    train = [image for image in images if image.digest not in held_out]
    test = [image for image in images if image.digest in held_out]
    for label, name in enumerate(classes):
        if not any(image.label == label for image in train):
            raise DataUnavailable(f"{folder / name} has no training images; about a tenth are for testing")
    lines = "".join(f"{image.digest}  {classes[image.label]}\n" for image in images)
    digest = hashlib.sha256(f"{SIDE}x{SIDE} grey\n{lines}".encode()).hexdigest()
    return Dataset(folder.resolve().name, digest, *_tensors(train), *_tensors(test), tuple(classes), None)


def read_row(content: bytes) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG file, of several frames the first, to uint8 `(28, 28)`.

    Raises ValueError, OSError and other errors of Pillow's decoders.
    """
    kind = next((kind for start, kind in FORMATS.items() if content.startswith(start)), None)
    if kind is None:
        raise ValueError("it is neither PNG nor JPEG")
    # Not `Image.open`, which only warns of huge images.
    with kind(BytesIO(content)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"it has {opened.width}x{opened.height} pixels, more than {MAX_PIXELS:,}")
        if opened.mode not in MODES:
            raise ValueError(f"pixels of mode {opened.mode} are not supported")
        opened.draft("L", opened.size)  # a JPEG holds its luma; converting to colour and back is skipped
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
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
        content = path.read_bytes()
        row = read_row(content)
    except Exception as error:  # decoders raise many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataUnavailable(f"{path} cannot be read as an image: {reason}") from error
    return _Labelled(hashlib.sha256(content).hexdigest(), label, row)


def _image_files(folder: Path) -> Iterator[Path]:
    suffixes = Image.registered_extensions()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name[0] != "." and path.suffix.lower() in suffixes:
            yield path


def _order(name: str) -> list[tuple[bool, int, str]]:
    """A sort key that compares numbers in names by value, so that 10 comes after 9."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def _unit(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _tensors(images: list[_Labelled]) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(np.stack([image.row for image in images]))[:, None]
    return rows, torch.tensor([image.label for image in images])

"""PNG and JPEG files to pictures. The files are untrusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.errors import InvalidImage
from app.images.container import check_rows, damaged, strip
from app.images.encode import SIGNATURE as PNG_SIGNATURE

Pixels = NDArray[np.float32]

MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Offsets of a PNG's bit depth and colour type, and two colour types (PNG, third edition, section 11.2.1).
DEPTH, COLOUR = 24, 25
GREY, RGB = 0, 2
# EXIF 2.32, tag 0x0112.
ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """An image file's pixels, upright.

    luminance: float32 (H, W) in [0, 1], proportional to the file's 8- or 16-bit grey values (no gamma).
    alpha: float32 (H, W) in [0, 1], 1 is opaque; None when every pixel is.
    """

    luminance: Pixels
    alpha: Pixels | None


def decode_image(content: bytes, *, max_side: int = 1024) -> Picture:
    """Decode a PNG or JPEG file of one frame.

    Accepts grey, colour, palette and CMYK files of 1 to 16 bits, with or without alpha. Colour becomes the luma of
    ITU-R BT.601. The EXIF orientation is applied. Transparent palette entries and colours become alpha.

    max_side: the longest side accepted, in pixels. It is checked before pixels are decoded, so at most
    max_side x max_side of them are in memory.

    Raises InvalidImage for all other files: other formats, sides outside 1..max_side, more than one frame, and files
    that are damaged or cut short.
    """
    with _damage_refused():
        stripped = strip(content)
        with _open(stripped, max_side) as image:
            if isinstance(image, PngImageFile):
                check_rows(stripped, image.tile[0].offset)
                _correct_transparency(image, stripped)
            else:
                # A JPEG holds its luma; converting to colour and back is skipped.
                image.draft("L", image.size)
            image.load()
            return _picture(_upright(image))


def count_pixels(content: bytes, *, max_side: int = 1024) -> int:
    """The number of pixels of a file according to its header; none of them is decoded.

    Raises InvalidImage for a header that `decode_image` refuses.
    """
    with _damage_refused(), _open(strip(content), max_side) as image:
        return image.width * image.height


@contextmanager
def _damage_refused() -> Iterator[None]:
    """Turn every exception into InvalidImage, except a lack of memory, which is not the caller's fault."""
    try:
        yield
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:
        # For a damaged file Pillow raises almost any built-in exception: OSError, SyntaxError, IndexError, ...
        raise damaged() from error


def _open(content: bytes, max_side: int) -> ImageFile:
    """Open a file and check its header. Not `Image.open`, which only warns of huge images."""
    image = (PngImageFile if content.startswith(PNG_SIGNATURE) else JpegImageFile)(BytesIO(content))
    if not all(1 <= side <= max_side for side in image.size):
        raise InvalidImage(f"Both sides of an image must be between 1 and {max_side} pixels long")
    if image.mode not in MODES:
        raise InvalidImage("The image has a pixel layout that is not supported")
    return image


def _correct_transparency(image: Image.Image, content: bytes) -> None:
    """Scale a PNG's transparent colour as Pillow scales its pixels.

    The colour is stored in 16 bits, of which the lowest `depth` count (PNG, section 11.3.1.1). Pillow scales grey
    pixels to 8 bits but not the colour, and reads 16-bit colour pixels as 8 bits.
    """
    transparent = image.info.get("transparency")
    depth, colour_type = content[DEPTH], content[COLOUR]
    if transparent is None:
        return
    if colour_type == GREY and depth in {2, 4, 8}:
        highest = 2**depth - 1
        image.info["transparency"] = (transparent & highest) * 255 // highest
    elif colour_type == RGB:
        image.info["transparency"] = tuple(part >> 8 if depth == 16 else part & 255 for part in transparent)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # the parser raises many kinds; the pixels of an image with broken EXIF are intact
        orientation = None
    transposition = TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None
    return image if transposition is None else image.transpose(transposition)


def _picture(image: Image.Image) -> Picture:
    if image.mode == "I;16":
        # Not convert("L"), which clips 16 bits to 8 instead of scaling them.
        grey = np.asarray(image)
        transparent = image.info.get("transparency")
        alpha = None if transparent is None else (grey != transparent).astype(np.float32)
        return Picture(grey.astype(np.float32) / np.float32(65535), alpha)
    if not image.has_transparency_data:
        # Pillow and browsers read CMYK as Adobe writes it, inverted.
        colour = image.convert("RGB") if image.mode in {"P", "CMYK"} else image
        return Picture(_unit(colour.convert("L")), None)
    colour = image.convert("RGBA")
    alpha = _unit(colour.getchannel("A"))
    return Picture(_unit(colour.convert("L")), None if alpha.min() == 1 else alpha)


def _unit(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32) / np.float32(255)

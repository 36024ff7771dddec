"""Untrusted bytes to a picture, safely. Knows nothing of digits, of models or of HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.errors import InvalidImage
from app.images.container import PNG_SIGNATURE, check_rows, cut_short, essence

Plane = NDArray[np.float32]

MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Where a PNG's bits a sample and kind of colour stand, and the kinds of grey and of colour without a palette.
DEPTH, COLOUR = 24, 25
GREY, RGB = 0, 2
# EXIF 2.32, tag 0x0112: what sets a picture upright.
ORIENTATION = 0x0112
UPRIGHT = {
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
    """What an image file shows, upright.

    luminance: float32 (H, W) in [0, 1], linear in the file's 8- or 16-bit grey values (no gamma).
    alpha: float32 (H, W) in [0, 1], 1 is opaque; None when every pixel is.
    """

    luminance: Plane
    alpha: Plane | None


def decode_image(content: bytes, *, max_side: int = 1024) -> Picture:
    """Read a PNG or JPEG file of one frame.

    Grey, colour, palette and CMYK files are read, 1 to 16 bits deep, with alpha or without; colour becomes
    the luma of ITU-R BT.601. The EXIF orientation is applied. Transparency is kept, also that of a palette or
    of a transparent colour.

    max_side: the longest side accepted, in pixels. It is checked before pixels are decoded, so that no more
    than max_side x max_side of them are ever in memory.

    Raises InvalidImage for everything else: other formats, sides outside 1..max_side, more than one frame,
    and files that are damaged or cut short.
    """
    shown = essence(content)
    with _told():
        with _open(shown) as image:
            _check_header(image, max_side)
            # Reads to the end and compares checksums: a PNG short of its last bytes would load without an error.
            image.verify()
        check_rows(content)
        with _open(shown) as image:
            # A JPEG's luma is what it holds: neither its colours are unpacked nor luma made of them again.
            image.draft("L", image.size)
            image.load()
            _mend_transparency(image, shown)
            return _picture(_upright(image))


def count_pixels(content: bytes, *, max_side: int = 1024) -> int:
    """How many pixels a file says it has; none of them is decoded.

    Raises InvalidImage where a file's header is one that `decode_image` refuses.
    """
    shown = essence(content)
    with _told(), _open(shown) as image:
        _check_header(image, max_side)
        return image.width * image.height


@contextmanager
def _told() -> Iterator[None]:
    """Whatever a decoder raises becomes InvalidImage, but for the service's own want of memory."""
    try:
        yield
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:
        # A decoder that meets broken bytes raises almost any built-in exception (OSError, SyntaxError,
        # IndexError, struct.error, zlib.error, ...), and none is the caller's business.
        raise cut_short() from error


def _open(content: bytes) -> Image.Image:
    """The file with its header read. Not `Image.open`, whose check for huge images warns instead of refusing."""
    return (PngImageFile if content.startswith(PNG_SIGNATURE) else JpegImageFile)(BytesIO(content))


def _check_header(image: Image.Image, max_side: int) -> None:
    if not all(1 <= side <= max_side for side in image.size):
        raise InvalidImage(f"Both sides of an image must be between 1 and {max_side} pixels long.")
    if image.mode not in MODES:
        raise InvalidImage("The image has a pixel layout that is not supported.")


def _mend_transparency(image: Image.Image, content: bytes) -> None:
    """Bring a PNG's transparent colour to the depth of its pixels.

    It is stored in 16 bits, of which the lowest `depth` count (PNG, section 11.3.2.1). Pillow scales pixels to 8 bits
    and not the colour; of colours in 16 bits it keeps the upper eight.
    """
    transparent = image.info.get("transparency")
    if transparent is None or not content.startswith(PNG_SIGNATURE):
        return
    depth = content[DEPTH]
    if content[COLOUR] == GREY and depth in {2, 4, 8}:
        largest = 2**depth - 1
        image.info["transparency"] = (transparent & largest) * 255 // largest
    elif content[COLOUR] == RGB:
        image.info["transparency"] = tuple(part >> 8 if depth == 16 else part & 255 for part in transparent)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # whatever a parser raises; a photo whose notes are broken is still a photo
        orientation = None
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _picture(image: Image.Image) -> Picture:
    if image.mode == "I;16":
        # Not convert("L"): it clips 16 bits to 8 instead of scaling them.
        grey = np.asarray(image)
        transparent = image.info.get("transparency")
        alpha = None if transparent is None else (grey != transparent).astype(np.float32)
        return Picture(grey.astype(np.float32) / np.float32(65535), alpha)
    if not image.has_transparency_data:
        # CMYK is read as Adobe writes it, inverted, which is what Pillow and browsers do.
        colour = image.convert("RGB") if image.mode in {"P", "CMYK"} else image
        return Picture(_unit(colour.convert("L")), None)
    colour = image.convert("RGBA")
    alpha = _unit(colour.getchannel("A"))
    return Picture(_unit(colour.convert("L")), None if alpha.min() == 1 else alpha)


def _unit(image: Image.Image) -> Plane:
    return np.asarray(image, dtype=np.float32) / np.float32(255)

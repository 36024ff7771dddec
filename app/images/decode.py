"""Untrusted bytes to a picture, safely. Knows nothing of digits, of models or of HTTP."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.errors import InvalidImage

Plane = NDArray[np.float32]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Each scan of a progressive JPEG, be it of ten bytes, costs a pass over all pixels. Encoders write about ten.
JPEG_SCAN = b"\xff\xda"
MAX_SCANS = 100
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
    try:
        with _open(content) as image:
            _check_header(image, max_side)
            # Reads to the end and compares checksums: a PNG short of its last bytes would load without an error.
            image.verify()
        with _open(content) as image:
            image.load()
            return _picture(_upright(image))
    except InvalidImage:
        raise
    except Exception as error:
        # A decoder that meets broken bytes raises almost any built-in exception (OSError, SyntaxError,
        # IndexError, struct.error, zlib.error, MemoryError, ...), and none is the caller's business.
        raise InvalidImage("The image is damaged or cut short; send a complete PNG or JPEG file.") from error


def _open(content: bytes) -> Image.Image:
    """The file with its header read. Not `Image.open`, whose check for huge images warns instead of refusing."""
    if content.startswith(PNG_SIGNATURE):
        return PngImageFile(BytesIO(content))
    if content.startswith(JPEG_SIGNATURE):
        if content.count(JPEG_SCAN) > MAX_SCANS:
            raise InvalidImage("The JPEG has too many scans.")
        return JpegImageFile(BytesIO(content))
    raise InvalidImage("The file is not an image of a supported format; send a PNG or a JPEG.")


def _check_header(image: Image.Image, max_side: int) -> None:
    if not all(1 <= side <= max_side for side in image.size):
        raise InvalidImage(f"Both sides of an image must be between 1 and {max_side} pixels long.")
    if getattr(image, "n_frames", 1) != 1:
        raise InvalidImage("The image has more than one frame; send a still PNG or JPEG.")
    if image.mode not in MODES:
        raise InvalidImage("The image has a pixel layout that is not supported.")


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

"""PNG and JPEG files to pictures. The files are untrusted."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.errors import InvalidImage
from app.images.container import Stripped, damaged, strip
from app.images.cost import REDUCED_SIDE, affordable_side, jpeg_scale
from app.images.encode import SIGNATURE as PNG_SIGNATURE
from app.images.resize import FloatPixels

MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Offsets of a PNG's bit depth and colour type, and two colour types (PNG, third edition, section 11.2.1).
DEPTH, COLOUR = 24, 25
GREY, RGB = 0, 2
# By the orientation of EXIF 2.32, tag 0x0112.
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
    """An image file's pixels, upright, at a reduced scale where its longer side is above `REDUCED_SIDE`.

    luminance: float32 (H, W) in [0, 1], proportional to the file's 8- or 16-bit grey values (no gamma).
    alpha: float32 (H, W) in [0, 1], 1 is opaque; None when every pixel is.
    """

    luminance: FloatPixels
    alpha: FloatPixels | None

    def is_opaque_square(self, size: int) -> bool:
        """Whether the picture is opaque and has size x size pixels."""
        return self.alpha is None and self.luminance.shape == (size, size)


def decode_image(content: bytes, *, max_side: int = 4096, max_cost_ms: float = 50) -> Picture:
    """Decode a PNG or JPEG file of one frame.

    Accepts grey, colour, palette and CMYK files of 1 to 16 bits, with or without alpha. Colour becomes the luma of
    ITU-R BT.601. The EXIF orientation is applied. Transparent palette entries and colours become alpha.

    Sides and cost, of which `estimate_cost` has the limits, are checked before any pixel is decoded.

    Raises InvalidImage for all other files: other formats, over the limits, more than one frame, and files that are
    damaged or cut short.
    """
    with _damage_refused():
        stripped = _checked(content, max_side, max_cost_ms)
        with _open(stripped) as image:
            if isinstance(image, PngImageFile):
                _correct_transparency(image, stripped.content)
            else:
                # A JPEG holds its luma, at eighths of its scale: most of the picture is never computed.
                scale = jpeg_scale(*image.size)
                image.draft("L", (max(1, image.width // scale), max(1, image.height // scale)))
            image.load()
            return _picture(image, TRANSPOSITIONS.get(stripped.orientation))


def is_grey_png(content: bytes) -> bool:
    """Whether a file that `decode_image` accepts is a PNG of grey pixels, with or without a transparent grey."""
    return content.startswith(PNG_SIGNATURE) and content[COLOUR] == GREY


def estimate_cost(content: bytes, *, max_side: int = 4096, max_cost_ms: float = 50) -> float:
    """The milliseconds of one core that decoding and normalizing a file take at most, estimated before it is decoded.

    max_side: the longest side accepted, in pixels.
    max_cost_ms: the highest estimate accepted.

    Raises InvalidImage for a file that `decode_image` refuses before it decodes pixels.
    """
    with _damage_refused():
        return _checked(content, max_side, max_cost_ms).cost_ms


def _checked(content: bytes, max_side: int, max_cost_ms: float) -> Stripped:
    stripped = strip(content)
    sides = stripped.width, stripped.height
    if min(sides) < 1:
        raise damaged()
    if max(sides) > max_side:
        raise InvalidImage(f"The image is too large; resize it so that no side is longer than {max_side} pixels")
    if stripped.cost_ms > max_cost_ms:
        side = affordable_side(max(sides), stripped.cost_ms, max_cost_ms)
        raise InvalidImage(
            f"The image would take too long to decode; resize it so that no side is longer than {side} pixels, or save "
            "it as a smaller baseline JPEG"
        )
    return stripped


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


def _open(stripped: Stripped) -> ImageFile:
    """Open a file whose header was checked. Not `Image.open`, which only warns of huge images."""
    content = stripped.content
    image = (PngImageFile if content.startswith(PNG_SIGNATURE) else JpegImageFile)(BytesIO(content))
    if image.size != (stripped.width, stripped.height):  # Pillow read another header than `strip`
        raise damaged()
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


def _reduced_and_upright(image: Image.Image, transposition: Image.Transpose | None) -> Image.Image:
    """Reduce a large image, and turn it upright."""
    factor = math.ceil(max(image.size) / REDUCED_SIDE)
    reduced = image.reduce(factor) if factor > 1 else image
    return reduced if transposition is None else reduced.transpose(transposition)


def _picture(image: Image.Image, transposition: Image.Transpose | None) -> Picture:
    transparent = image.info.get("transparency")
    if image.mode == "I;16":
        # Not convert("L"), which clips 16 bits to 8 instead of scaling them.
        grey = np.asarray(image)
        if transparent is None:
            unit = Image.fromarray(grey / np.float32(65535))
            return Picture(np.asarray(_reduced_and_upright(unit, transposition)), None)
        opaque = np.where(grey == transparent, np.uint8(0), np.uint8(255))
        image = Image.fromarray(np.dstack([grey >> 8, opaque]).astype(np.uint8))
    if not image.has_transparency_data:
        # Pillow and browsers read CMYK as Adobe writes it, inverted.
        colour = image.convert("RGB") if image.mode in {"P", "CMYK"} else image
        return Picture(_unit(_reduced_and_upright(colour.convert("L"), transposition)), None)
    colour = _reduced_and_upright(image.convert("RGBA"), transposition)
    alpha = _unit(colour.getchannel("A"))
    return Picture(_unit(colour.convert("L")), None if alpha.min() == 1 else alpha)


def _unit(image: Image.Image) -> FloatPixels:
    return np.asarray(image, dtype=np.float32) / np.float32(255)

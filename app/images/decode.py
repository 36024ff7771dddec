"""Untrusted bytes to a picture, safely. Knows nothing of digits, of models or of HTTP.

The file is first taken apart here, and Pillow is then shown only what it needs for the pixels: no text, no
colour profile, no EXIF, no further frames. So a metadata bomb is never opened, a broken piece of metadata
cannot make Pillow warn, and the size, the frame count and the end of the file are known before a pixel is.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.errors import InvalidImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
ANIMATION_CHUNKS = {b"acTL", b"fcTL", b"fdAT"}
# JPEG markers, ITU-T T.81 table B.1: Huffman, arithmetic and quantisation tables, the restart interval, and
# the two application segments that say what the colour components are (JFIF, Adobe).
TABLE_MARKERS = {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN = 0xDA
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
# PNG specification, section 8: first column, first row, and the steps between them, of each interlacing pass.
WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
# Far above what encoders write; they keep a file of a million empty pieces from taking seconds.
MAX_PIECES = 10_000
MAX_SCANS = 100
# EXIF 2.32, tag 0x0112: what sets a picture upright (swap rows and columns; reverse rows; reverse columns).
UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Picture:
    """What an image file shows, upright.

    luminance: float32 (H, W) in [0, 1], linear in the file's 8- or 16-bit grey values (no gamma).
    alpha: float32 (H, W) in [0, 1], 1 is opaque; None when every pixel is.
    """

    luminance: NDArray[np.float32]
    alpha: NDArray[np.float32] | None


@dataclass(frozen=True)
class _Pixels:
    """A file with all but its pixels removed, and what the removed parts said of them."""

    content: bytes
    size: tuple[int, int]
    orientation: int = 1
    # The colour that stands for transparent, as Pillow will show it.
    transparent: tuple[int, ...] | None = None


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
        pixels = _read_pixels(content, max_side)
        with Image.open(BytesIO(pixels.content), formats=("PNG", "JPEG")) as image:
            # The size that was checked is the size that Pillow is about to allocate.
            if image.size != pixels.size or image.mode not in MODES:
                raise InvalidImage("The image has a pixel layout that is not supported.")
            image.load()
            luminance, alpha = _luminance_and_alpha(image, pixels.transparent)
    except InvalidImage:
        raise
    except Exception as error:
        # A decoder that meets broken bytes raises almost any built-in exception (OSError, SyntaxError,
        # IndexError, struct.error, zlib.error, MemoryError, ...), and none is the caller's business.
        raise InvalidImage("The image is damaged or cut short; send a complete PNG or JPEG file.") from error
    upright = _upright(luminance, pixels.orientation)
    if alpha is None or alpha.min() == 1:
        return Picture(upright, None)
    return Picture(upright, _upright(alpha, pixels.orientation))


def _read_pixels(content: bytes, max_side: int) -> _Pixels:
    if content.startswith(PNG_SIGNATURE):
        return _read_png(content, max_side)
    if content.startswith(JPEG_SIGNATURE):
        return _read_jpeg(content, max_side)
    raise InvalidImage("The file is not an image of a supported format; send a PNG or a JPEG.")


def _check_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    if not (1 <= width <= max_side and 1 <= height <= max_side):
        raise InvalidImage(f"Both sides of an image must be between 1 and {max_side} pixels long.")
    return width, height


def _several_frames() -> InvalidImage:
    return InvalidImage("The image has more than one frame; send a still PNG or JPEG.")


def _read_png(content: bytes, max_side: int) -> _Pixels:
    """Keep the pixel chunks of a PNG (PNG specification, third edition, section 5)."""
    view = memoryview(content)
    kind, header, end = _png_chunk(view, len(PNG_SIGNATURE))
    if kind != b"IHDR":
        raise InvalidImage("The PNG does not start with its header.")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", header)
    size = _check_size(width, height, max_side)
    kept, compressed = [view[:end]], []
    orientation, transparent = 1, None
    for _ in range(MAX_PIECES):
        start = end
        kind, data, end = _png_chunk(view, start)
        if kind in ANIMATION_CHUNKS:
            raise _several_frames()
        if kind in PIXEL_CHUNKS or (kind == b"tRNS" and colour_type == PALETTE):
            kept.append(view[start:end])
        elif kind == b"tRNS":
            transparent = _transparent_colour(data, depth, colour_type)
        elif kind == b"eXIf":
            orientation = _exif_orientation(bytes(data))
        elif not kind[0] & 0x20:
            raise InvalidImage("The PNG has a critical chunk that is not supported.")
        if kind == b"IDAT":
            compressed.append(data)
        if kind == b"IEND":
            _check_complete(b"".join(compressed), header)
            return _Pixels(b"".join(kept), size, orientation, transparent)
    raise InvalidImage("The PNG has too many chunks.")


def _check_complete(compressed: bytes, header: memoryview) -> None:
    """Refuse compressed pixels that end too early: Pillow would show the missing ones as black."""
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
    expected = 0
    for first_column, first_row, column_step, row_step in ADAM7 if interlace else WHOLE:
        columns = len(range(first_column, width, column_step))
        rows = len(range(first_row, height, row_step))
        if columns:
            expected += rows * (1 + (columns * CHANNELS[colour_type] * depth + 7) // 8)
    if len(zlib.decompressobj().decompress(compressed, expected)) < expected:
        raise InvalidImage("The PNG is cut short.")


def _png_chunk(view: memoryview, start: int) -> tuple[bytes, memoryview, int]:
    """The name and the data of the chunk at `start`, and where the next one starts."""
    length, kind = struct.unpack_from(">I4s", view, start)
    end: int = start + 12 + length
    (checksum,) = struct.unpack_from(">I", view, end - 4)
    if checksum != zlib.crc32(view[start + 4 : end - 4]):
        raise InvalidImage("The PNG is damaged: a checksum does not match.")
    return kind, view[start + 8 : end - 4], end


def _transparent_colour(data: memoryview, depth: int, colour_type: int) -> tuple[int, ...]:
    """The tRNS colour of a grey or RGB file, in the units of the pixels that Pillow decodes."""
    is_rgb = colour_type == RGB
    colour = struct.unpack_from(">3H" if is_rgb else ">H", data)
    if depth in (2, 4):  # widened to 8 bits
        return tuple(sample * 255 // (2**depth - 1) for sample in colour)
    if depth == 16 and is_rgb:  # narrowed to 8 bits; grey stays at 16
        return tuple(sample >> 8 for sample in colour)
    return colour


def _read_jpeg(content: bytes, max_side: int) -> _Pixels:
    """Keep the pixel segments of a JPEG (ITU-T T.81, annex B)."""
    kept = [content[:2]]
    size: tuple[int, int] | None = None
    orientation, has_more_frames, has_gain_map = 1, False, False
    at = 2
    for _ in range(MAX_PIECES):
        marker, segment, end = _jpeg_segment(content, at)
        if marker in FRAME_MARKERS:
            if size is not None:
                raise _several_frames()
            height, width = struct.unpack_from(">HH", segment, 1)
            size = _check_size(width, height, max_side)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(segment[6:])
        elif marker == 0xE1 and b"hdrgm:Version" in segment:
            has_gain_map = True
        elif marker == 0xE2 and segment.startswith(b"MPF\0"):
            has_more_frames = True
        if marker in FRAME_MARKERS or marker in TABLE_MARKERS:
            kept.append(content[at:end])
        if marker == START_OF_SCAN:
            break
        at = end
    # Phones append a gain map for bright displays to a photo that is still one frame; a multi-picture file
    # (MPO) without one is several.
    if has_more_frames and not has_gain_map:
        raise _several_frames()
    if size is None or marker != START_OF_SCAN:
        raise InvalidImage("The JPEG has no image header.")
    kept.append(_jpeg_scans(content, at))
    return _Pixels(b"".join(kept), size, orientation)


def _jpeg_segment(content: bytes, start: int) -> tuple[int, bytes, int]:
    """The marker and the payload of the segment at `start`, and where the next one starts."""
    at = start
    while content[at] == 0xFF:  # a marker may be preceded by any number of fill bytes
        at += 1
    marker = content[at]
    (length,) = struct.unpack_from(">H", content, at + 1)
    end = at + 1 + length
    if at == start or length < 2 or end > len(content):
        raise InvalidImage("The JPEG is damaged or cut short.")
    return marker, content[at + 3 : end], end


def _jpeg_scans(content: bytes, start: int) -> bytes:
    """Everything from the first scan to the end marker, which cannot occur inside a scan."""
    end = content.find(b"\xff\xd9", start)
    if end < 0:
        raise InvalidImage("The JPEG is cut short.")
    scans = content[start : end + 2]
    # A progressive scan of a few bytes costs a pass over all pixels.
    if scans.count(bytes((0xFF, START_OF_SCAN))) > MAX_SCANS:
        raise InvalidImage("The JPEG has too many scans.")
    return scans


def _exif_orientation(tiff: bytes) -> int:
    """The orientation (1..8) that the first directory of EXIF data states; 1 if it states none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    for index in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * index)
        if tag == 0x0112 and kind == 3 and value in UPRIGHT:
            return int(value)
    return 1


def _luminance_and_alpha(
    image: Image.Image, transparent: tuple[int, ...] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    alpha: NDArray[np.float32] | None = None
    if transparent is not None:
        samples = np.asarray(image)
        is_opaque = samples != np.asarray(transparent)
        alpha = (is_opaque.any(axis=2) if is_opaque.ndim == 3 else is_opaque).astype(np.float32)
    elif image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if "A" in image.getbands():
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32) / np.float32(255)
    if image.mode == "I;16":
        # Not convert("L"): it clips 16 bits to 8 instead of scaling them.
        return np.asarray(image).astype(np.float32) / np.float32(65535), alpha
    if image.mode == "CMYK":
        # Pillow reads CMYK files as Adobe writes them, inverted, as browsers do.
        image = image.convert("RGB")
    return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255), alpha


def _upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    swaps, reverses_rows, reverses_columns = UPRIGHT[orientation]
    if swaps:
        pixels = pixels.T
    if reverses_rows:
        pixels = pixels[::-1]
    if reverses_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)

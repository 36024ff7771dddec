"""Grey images to PNG and APNG files (PNG, third edition, W3C 2025).

Pillow's writer takes two to six times as long for files that are a little larger: it opens an encoder, a plugin and a
stream for each image, and tries every filter on every row.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# The version of the encoding, to be increased whenever equal pixels would give other bytes.
SCHEME = "rle/1"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# 8 bits a sample, grey, deflate, the five standard filters, no interlacing.
GREY_8 = b"\x08\x00\x00\x00\x00"
# Section 9.2: the difference to the row above. A row of filter 0 holds its pixels as they are.
FILTER_UP = 2
# Section 11.3.6.2: dispose_op "none" and blend_op "source".
KEEP_AND_REPLACE = b"\x00\x00"
FOREVER = 0


def still(image: Pixels, scale: int = 1) -> bytes:
    """An image (H, W) as a PNG, each pixel a square of `scale` x `scale`.

    Raises ValueError for an image without pixels and for a scale below one.
    """
    return b"".join((*_header(image, scale), chunk(b"IDAT", _deflated(image, scale)), END))


def animation(images: Pixels, scale: int, frame_ms: int) -> bytes:
    """Images (N, H, W) as an APNG of N frames, `frame_ms` milliseconds each, that repeats forever.

    Equal images remain separate frames. Raises ValueError for no images, images without pixels, and a scale below one.
    """
    if not len(images):
        raise ValueError("an animation has at least one image")
    parts = [*_header(images[0], scale), chunk(b"acTL", struct.pack(">II", len(images), FOREVER))]
    height, width = images.shape[1:]
    region = struct.pack(">IIII", width * scale, height * scale, 0, 0)
    timing = struct.pack(">HH", frame_ms, 1000) + KEEP_AND_REPLACE
    # Control and data chunks of frames are numbered together; the first frame is also the still image.
    parts += [chunk(b"fcTL", struct.pack(">I", 0) + region + timing), chunk(b"IDAT", _deflated(images[0], scale))]
    for number, image in enumerate(images[1:]):
        parts.append(chunk(b"fcTL", struct.pack(">I", 2 * number + 1) + region + timing))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * number + 2) + _deflated(image, scale)))
    return b"".join((*parts, END))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)))


def _header(image: Pixels, scale: int) -> tuple[bytes, bytes]:
    if scale < 1:
        raise ValueError("the scale is at least 1")
    if not image.size:
        raise ValueError("an image has at least one pixel")
    height, width = image.shape
    return SIGNATURE, chunk(b"IHDR", struct.pack(">II", width * scale, height * scale) + GREY_8)


def _deflated(image: Pixels, scale: int) -> bytes:
    """The filtered rows, compressed.

    Digits are runs of black and strokes of many greys: at the same level, searching for runs alone gives smaller files
    in less time than searching for longer matches, and unfiltered pixels compress better than any filter's. Only
    the rows that repeat the one above are filtered, to zeros.
    """
    height, width = image.shape
    rows = np.zeros((height, scale, 1 + width * scale), dtype=np.uint8)
    rows[:, 0, 1:] = image.repeat(scale, axis=1) if scale > 1 else image
    rows[:, 1:, 0] = FILTER_UP
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(rows.data) + deflate.flush()


END = chunk(b"IEND", b"")

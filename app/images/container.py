"""PNG and JPEG files reduced to the parts that decoding needs, so that Pillow's cost is bounded.

Pillow reads chunks and segments in Python and keeps them: 1 MB of empty JPEG segments takes 0.4 s and 30 MB, and 61 kB
of compressed PNG texts take 0.4 s and 58 MB.
"""

import re
import struct
import zlib

from app.errors import InvalidImage
from app.images.encode import SIGNATURE, chunk

JPEG_SIGNATURE = b"\xff\xd8\xff"
# A longer EXIF block is ignored: Pillow takes 0.1 s to read 65,535 tags. One JPEG segment holds no more.
MAX_EXIF = 0xFFFF
# Cameras write about thirty segments.
MAX_SEGMENTS = 256
# libjpeg decodes every pixel again for each scan. Encoders write ten for a progressive file, 18 for CMYK.
MAX_SCANS = 20
# A marker after any number of fill bytes (ITU-T T.81, section B.1.1.2).
MARKER = re.compile(rb"\xff+([\x01-\xfe])")
START_OF_SCAN, END_OF_IMAGE, APPLICATION, COMMENT = 0xDA, 0xD9, range(0xE0, 0xF0), 0xFE
# Samples of a pixel by colour type, and the passes of interlacing as first column, first row, and the steps between
# columns and between rows (PNG, third edition, sections 11.2.1 and 8.1).
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
NOT_INTERLACED = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def strip(content: bytes) -> bytes:
    """Remove what does not change the picture from a PNG or JPEG file.

    Raises InvalidImage for other formats, for animations of more than one frame, and for too many segments or scans;
    InvalidImage, struct.error or KeyError for damaged files.
    """
    if content.startswith(SIGNATURE):
        return _strip_png(content)
    if content.startswith(JPEG_SIGNATURE):
        return _strip_jpeg(content)
    raise InvalidImage("The file is not an image of a supported format; send a PNG or a JPEG")


def damaged() -> InvalidImage:
    """The error for a file that is not a valid image."""
    return InvalidImage("The image is damaged or cut short; send a complete PNG or JPEG file")


def check_rows(content: bytes, start: int) -> None:
    """Check that a stripped PNG, whose pixel data start at `start`, has all the rows of its header.

    Pillow shows missing rows in black. The file's sides must have been checked, as this unpacks all rows.

    Raises InvalidImage, or zlib.error.
    """
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", content, len(SIGNATURE) + 8)
    size = 0
    for left, top, right, down in ADAM7 if interlaced else NOT_INTERLACED:
        columns, rows = (width - left + right - 1) // right, (height - top + down - 1) // down
        if columns > 0:
            size += rows * (1 + (columns * SAMPLES[colour] * depth + 7) // 8)  # a filter byte before each row
    if len(zlib.decompressobj().decompress(content[start:], size)) < size:
        raise damaged()


def _strip_png(content: bytes) -> bytes:
    """Keep the header, palette, transparency and orientation, and put the pixels into one chunk."""
    chunks: dict[bytes, bytes] = {}
    pixels, kind, start = [], b"", len(SIGNATURE)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, start)
        data = content[start + 8 : start + 8 + length]
        if struct.unpack_from(">I", content, start + 8 + length)[0] != zlib.crc32(kind + data):
            raise damaged()
        if (kind == b"IHDR") == bool(chunks):  # the header is the first chunk, and no other
            raise damaged()
        if kind == b"acTL" and int.from_bytes(data[:4]) > 1:
            raise InvalidImage("The image has more than one frame; send a still PNG or JPEG")
        if kind == b"IDAT":
            pixels.append(data)
        elif kind in {b"IHDR", b"PLTE", b"tRNS"} or (kind == b"eXIf" and length <= MAX_EXIF):
            chunks[kind] = data
        elif kind != b"IEND" and not kind[0] & 0x20:  # an unknown chunk that the picture depends on
            raise damaged()
        start += 12 + length
    if struct.unpack(">8x2x3B", chunks[b"IHDR"]) not in {(0, 0, 0), (0, 0, 1)}:
        raise damaged()  # an unknown compression, filter or interlacing method, which Pillow ignores
    chunks |= {b"IDAT": b"".join(pixels), b"IEND": b""}
    return SIGNATURE + b"".join(chunk(kind, data) for kind, data in chunks.items())


def _strip_jpeg(content: bytes) -> bytes:
    """Remove comments and application data, except for the colour transform and the orientation."""
    kept, start = [content[:2]], 2
    needed = {b"JFIF", b"Exif", b"Adob"}  # one of each
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.match(content, start)
        if marker is None:
            raise damaged()
        kind, body = marker[1][0], marker.end()
        if kind in {START_OF_SCAN, END_OF_IMAGE}:
            if content.count(b"\xff\xda", body - 2) > MAX_SCANS:
                raise InvalidImage(f"The JPEG has more than {MAX_SCANS} scans")
            return b"".join([*kept, content[body - 2 :]])
        (length,) = struct.unpack_from(">H", content, body)
        start = body + length
        name = content[body + 2 : body + 6]
        if kind not in APPLICATION and kind != COMMENT:
            kept.append(content[body - 2 : start])
        elif name in needed:
            needed.remove(name)
            kept.append(content[body - 2 : start])
    raise InvalidImage("The JPEG has too many segments")

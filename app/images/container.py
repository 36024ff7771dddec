"""PNG and JPEG files reduced to the parts that decoding needs, so that Pillow's cost is bounded.

Pillow reads chunks and segments in Python and keeps them: 1 MB of empty JPEG segments takes 0.4 s and 30 MB, and 61 kB
of compressed PNG texts take 0.4 s and 58 MB.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from app.errors import InvalidImage
from app.images.cost import jpeg_cost, png_cost
from app.images.encode import SIGNATURE, chunk

JPEG_SIGNATURE = b"\xff\xd8\xff"
# Tags of an EXIF block that are searched for the orientation; cameras write it among the first. EXIF 2.32, tag 0x0112.
MAX_TAGS = 256
ORIENTATION, SHORT = 0x0112, 3
# Cameras write about thirty segments, with some 2 KiB of tables. Pillow copies the rest of a segment for each table.
MAX_SEGMENTS, MAX_TABLE_BYTES = 256, 16 * 1024
# libpng writes chunks of 8 KiB or more.
MAX_CHUNKS = 1024
# libjpeg decodes every pixel again for each scan. Encoders write ten for a progressive file, 18 for CMYK.
MAX_SCANS = 20
# The frames that libjpeg can decode at a reduced scale: baseline, extended and progressive, Huffman-coded.
FRAMES, PROGRESSIVE = {0xC0, 0xC1, 0xC2}, 0xC2
# Huffman tables, quantization tables, restart interval. Other segments before the first scan are dropped or refused:
# Pillow and libjpeg read a length after some of them and none after others.
TABLES = {0xC4, 0xDB, 0xDD}
# A marker after any number of fill bytes (ITU-T T.81, section B.1.1.2).
MARKER = re.compile(rb"\xff+([\x01-\xfe])")
START_OF_SCAN, APPLICATION, COMMENT = 0xDA, range(0xE0, 0xF0), 0xFE
END_OF_IMAGE = b"\xff\xd9"
# Samples of a pixel by colour type (PNG, third edition, section 11.2.1).
SAMPLES, WITH_ALPHA = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}, {4, 6}


@dataclass(frozen=True)
class Stripped:
    """A file without the parts that do not affect its picture.

    content: the file.
    width, height: the sides in its header, in pixels.
    orientation: of EXIF, 1 to 8; 1 is upright.
    cost_ms: an upper estimate of the milliseconds of one core that decoding and normalizing it take.
    """

    content: bytes
    width: int
    height: int
    orientation: int
    cost_ms: float


def strip(content: bytes) -> Stripped:
    """Remove the parts of a PNG or JPEG file that do not affect its picture.

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


def _strip_png(content: bytes) -> Stripped:
    """Keep the header, palette and transparency, and put the pixels into one chunk."""
    chunks: dict[bytes, bytes] = {}
    pixels, start, orientation = [], len(SIGNATURE), 1
    for _ in range(MAX_CHUNKS):
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
        elif kind in {b"IHDR", b"PLTE", b"tRNS"}:
            chunks[kind] = data
        elif kind == b"eXIf":
            orientation = _orientation(data)
        elif kind != b"IEND" and not kind[0] & 0x20:  # an unknown chunk that the picture depends on
            raise damaged()
        start += 12 + length
        if kind == b"IEND":
            break
    else:
        raise InvalidImage("The PNG has too many chunks")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise damaged()  # an unknown compression, filter or interlacing method, which Pillow ignores
    # Without the last byte of its checksum the zlib stream never ends, so that Pillow refuses a file with missing rows
    # instead of showing them in black.
    compressed = b"".join(pixels)
    chunks |= {b"IDAT": compressed[:-1], b"IEND": b""}
    stripped = SIGNATURE + b"".join(chunk(kind, data) for kind, data in chunks.items())
    unpacked = height * (1 + (width * SAMPLES[colour] * depth + 7) // 8)  # a filter byte before each row
    has_alpha = colour in WITH_ALPHA or b"tRNS" in chunks
    cost = png_cost(
        len(content), len(compressed), unpacked, width * height, has_alpha=has_alpha, interlaced=methods[2] == 1
    )
    return Stripped(stripped, width, height, orientation, cost)


def _orientation(exif: bytes) -> int:
    """The orientation in an EXIF block (TIFF 6.0, section 2), 1 if there is none or the block is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (tags,) = struct.unpack_from(order + "H", exif, first)
        for number in range(min(tags, MAX_TAGS)):
            tag, form, _, value = struct.unpack_from(order + "HHIH", exif, first + 2 + 12 * number)
            if tag == ORIENTATION:
                return int(value) if form == SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


class _Frame:
    """The frame header of a JPEG, from its marker on (T.81, section B.2.2)."""

    def __init__(self, header: bytes) -> None:
        kind, self.height, self.width, self.components = struct.unpack_from(">B3xHHB", header)
        self.is_progressive = kind == PROGRESSIVE
        # Horizontal and vertical sampling factors share a byte.
        factors = [(header[at] >> 4, header[at] & 15) for at in range(10, 9 + 3 * self.components, 3)]
        whole = max(across for across, _ in factors) * max(down for _, down in factors)
        self.samples_per_pixel = sum(across * down for across, down in factors) / whole


def _strip_jpeg(content: bytes) -> Stripped:
    """Keep frame, tables, colour transform and scans."""
    kept, start, orientation, table_bytes = [content[:2]], 2, 1, 0
    needed = {b"JFIF", b"Exif", b"Adob"}  # one of each
    frame: _Frame | None = None
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.match(content, start)
        if marker is None:
            raise damaged()
        kind, body = marker[1][0], marker.end()
        if kind == START_OF_SCAN:
            # Phones append previews and gain maps, which are pictures with scans of their own.
            end = content.find(END_OF_IMAGE, body)
            scans = content.count(b"\xff\xda", body - 2, max(end, 0))
            if frame is None or end < 0:
                raise damaged()
            if scans > MAX_SCANS:
                raise InvalidImage(f"The JPEG has more than {MAX_SCANS} scans")
            stripped = b"".join([*kept, content[body - 2 : end + len(END_OF_IMAGE)]])
            # libjpeg keeps the whole picture in memory if a scan has only a part of it.
            is_whole = scans == 1 and not frame.is_progressive and content[body + 2] >= frame.components
            cost = jpeg_cost(end - body, frame.width, frame.height, frame.samples_per_pixel, 0 if is_whole else scans)
            return Stripped(stripped, frame.width, frame.height, orientation, cost)
        (length,) = struct.unpack_from(">H", content, body)
        start = body + length
        segment, name = content[body - 2 : start], content[body + 2 : body + 6]
        if kind in FRAMES and frame is None:
            frame = _Frame(content[body - 1 : body + 2 + 255 * 3])
        elif kind in TABLES:
            table_bytes += length
            if table_bytes > MAX_TABLE_BYTES:
                raise InvalidImage("The JPEG has too many tables")
        elif kind in APPLICATION or kind == COMMENT:
            if name not in needed:
                continue
            needed.remove(name)
            if name == b"Exif":
                orientation = _orientation(segment[10:])
                continue
        else:
            raise InvalidImage("The JPEG is neither baseline nor progressive; save it as one of these")
        kept.append(segment)
    raise InvalidImage("The JPEG has too many segments")

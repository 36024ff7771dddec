"""PNG and JPEG files to the parts of them that show pixels. Of pixels it knows how many bytes they take.

Pillow reads every chunk and every marker in Python, unpacks texts and colour profiles, and holds them: 85,000 empty
chunks in a file of 1 MB take it almost a second, and sixty packed texts in 63 kB take it 60 MB. What does not change
the picture is left out before it sees the file, and what is left has few parts.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from app.errors import InvalidImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
# Encoders write a chunk for every 8 kB of pixels, or larger ones.
MAX_CHUNKS, BYTES_A_CHUNK = 256, 1024
# Cameras write some thirty segments.
MAX_SEGMENTS = 256
# Each scan of a progressive JPEG, be it of ten bytes, costs a pass over all pixels. Encoders write ten, for CMYK 18.
JPEG_SCAN = b"\xff\xda"
MAX_SCANS = 20
# Transparency and orientation change the picture.
PNG_KINDS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"}
# Sides, depth, colour, the one compression and the one filtering that there are, and interlacing (PNG, section 11.2.1).
IHDR = re.compile(rb".{8}..\0\0[\0\1].{4}", re.DOTALL)
# Samples of a pixel by kind of colour, and of each pass of interlacing the first column and row, and the steps between
# its columns and rows (PNG, sections 11.2.1 and 8.2).
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Bytes unpacked at a time: deflate makes at most 1032 of one.
PIECE = 1024
# A marker behind at most so many fill bytes (ITU-T T.81, section B.1.1.2).
MARKER = re.compile(rb"\xff{1,16}([^\xff\x00])")
START_OF_SCAN, END_OF_IMAGE, APPLICATION, COMMENT = 0xDA, 0xD9, range(0xE0, 0xF0), 0xFE
JFIF, EXIF, ADOBE = 0xE0, 0xE1, 0xEE


def cut_short() -> InvalidImage:
    """The error of a file that ends before it should, or whose parts do not follow each other."""
    return InvalidImage("The image is damaged or cut short; send a complete PNG or JPEG file.")


def essence(content: bytes) -> bytes:
    """The file without what its picture does not need.

    Raises InvalidImage for other formats, too many parts, and animations of more than one frame.
    """
    if content.startswith(PNG_SIGNATURE):
        return _png(content)
    if content.startswith(JPEG_SIGNATURE):
        return _jpeg(content)
    raise InvalidImage("The file is not an image of a supported format; send a PNG or a JPEG.")


def check_rows(content: bytes) -> None:
    """Raises InvalidImage, or zlib.error, for a PNG of fewer rows than its header says; Pillow makes them up in black.

    content: a file that has an essence, whose sides and kind of pixels were checked: no more is unpacked than they
    take, and of that about 1 MiB is held at a time.
    """
    if not content.startswith(PNG_SIGNATURE):
        return
    missing, unpacker = _packed_bytes(content), zlib.decompressobj()
    for kind, start, end in _chunks(content):
        if kind != b"IDAT":
            continue
        for at in range(start, end, PIECE):
            missing -= len(unpacker.decompress(content[at : min(at + PIECE, end)], missing))
            if missing == 0:
                return
    raise cut_short()


def _packed_bytes(content: bytes) -> int:
    """How many bytes the rows of a PNG take, each behind the number of its filter (PNG, section 7.2)."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, len(PNG_SIGNATURE) + 8)
    taken = 0
    for left, top, right, down in ADAM7 if interlaced else WHOLE:
        columns, rows = (width - left + right - 1) // right, (height - top + down - 1) // down
        if columns > 0:
            taken += rows * (1 + (columns * SAMPLES[colour] * depth + 7) // 8)
    return taken


def _png(content: bytes) -> bytes:
    kept = [PNG_SIGNATURE]
    for kind, start, end in _chunks(content):
        if (kind == b"IHDR") != (len(kept) == 1):
            raise cut_short()
        if kind == b"IHDR" and not IHDR.fullmatch(content[start : end + 4]):
            raise cut_short()
        if kind == b"acTL" and _frames(content[start:end]) > 1:
            raise InvalidImage("The image has more than one frame; send a still PNG or JPEG.")
        if kind in PNG_KINDS:
            kept.append(content[start - 8 : end + 4])
        elif not kind[0] & 0x20:
            raise InvalidImage("The PNG has a part that is not known and must not be left out.")
    return b"".join(kept)


def _frames(control: bytes) -> int:
    """How many frames an animation's control chunk promises (PNG, third edition, section 11.3.6.1)."""
    if len(control) != 8:
        raise cut_short()
    return int.from_bytes(control[:4])


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, and where its data start and end, up to IEND. Raises InvalidImage."""
    start = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS + len(content) // BYTES_A_CHUNK):
        if start + 12 > len(content):
            raise cut_short()
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):
            raise cut_short()
        yield kind, start + 8, end - 4
        if kind == b"IEND":
            return
        start = end
    raise InvalidImage("The PNG has too many chunks.")


def _jpeg(content: bytes) -> bytes:
    """Bounded up to the first scan, which is how far Pillow reads; the rest is libjpeg's."""
    kept, start = [content[:2]], 2
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.match(content, start)
        if marker is None or marker.end() + 2 > len(content):
            raise cut_short()
        kind = marker[1][0]
        if kind in {START_OF_SCAN, END_OF_IMAGE}:
            # Those of a preview in the segments before are not decoded.
            if content.count(JPEG_SCAN, marker.end() - 2) > MAX_SCANS:
                raise InvalidImage(f"The JPEG has more than {MAX_SCANS} scans.")
            return b"".join([*kept, content[marker.end() - 2 :]])
        (length,) = struct.unpack_from(">H", content, marker.end())
        end = marker.end() + length
        if length < 2 or end > len(content):
            raise cut_short()
        if _shows(kind, content[marker.end() + 2 : marker.end() + 8]):
            kept.append(content[marker.end() - 2 : end])
        start = end
    raise InvalidImage("The JPEG has too many segments.")


def _shows(kind: int, name: bytes) -> bool:
    """Whether the picture depends on a segment: notes count where they tell its colours or which way up it is."""
    if kind in APPLICATION:
        return (kind, name[:4]) in {(JFIF, b"JFIF"), (EXIF, b"Exif"), (ADOBE, b"Adob")}
    return kind != COMMENT

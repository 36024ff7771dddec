"""Hostile image files: other formats, damaged, too large, with too many parts, unusual."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).parents[1] / "fixtures"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY = np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour_type: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace))


def built(ihdr: bytes, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of raw rows, each with its filter byte first."""
    return SIGNATURE + ihdr + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segment(marker: int, data: bytes) -> bytes:
    return JPEG[:2] + segment(marker, data) + JPEG[2:]


def with_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A valid PNG with one more chunk after its header."""
    return PNG[:33] + chunk(kind, data) + PNG[33:]


def orientation(value: int, order: str = "<") -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    return start + struct.pack(order + "IH", 8, 1) + entry + b"\0\0\0\0"


def patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def scanned(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated up to a number of scans; libjpeg decodes each one."""
    content = saved(image, "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (scans - content.count(b"\xff\xda")) + content[-2:]


def empty_blocks(count: int, rows: bytes) -> bytes:
    """A zlib stream of rows behind deflate blocks that hold nothing but their Huffman tables, 23 bytes for two."""
    lengths = {2: 1, 3: 2, 17: 2}  # of the codes for many zeros, for 0 and for 1, by their place in RFC 1951, 3.2.7
    # Not the last block, of the dynamic kind, with the fewest codes and 18 code lengths; each number's low bit first.
    bits = "0" + "01" + "00000" + "00000" + "0111" + "".join(f"{lengths.get(i, 0):03b}"[::-1] for i in range(18))
    bits += "0" + f"{138 - 11:07b}"[::-1] + "0" + f"{118 - 11:07b}"[::-1] + "11" + "10" + "0"  # the end of the block
    twice = 2 * bits
    block = bytes(int(twice[at : at + 8][::-1], 2) for at in range(0, len(twice), 8))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = block * (count // 2) + deflate.compress(rows) + deflate.flush()
    return b"\x78\x9c" + body + struct.pack(">I", zlib.adler32(rows))


PNG = saved(Image.fromarray(GREY), "PNG")
JPEG = saved(Image.fromarray(GREY), "JPEG", quality=95)
COLOUR = saved(Image.fromarray(GREY).convert("RGB"), "JPEG")
FRAMES = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
SOF = JPEG.index(b"\xff\xc0")
SOS = JPEG.index(b"\xff\xda")
PHOTO = (FIXTURES / "drawings" / "9-rotated-exif.jpg").read_bytes()
DRAWING = (FIXTURES / "drawings" / "4-transparent.png").read_bytes()
BOMB = zlib.compress(bytes(32 << 20), 9)

# The two signatures decide, so a few formats stand for all.
FOREIGN = {
    "nothing": b"",
    "a thousand zero bytes": bytes(1000),
    "HTML": b"<!doctype html><title>413</title>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "ZIP": b"PK\x03\x04" + bytes(60),
    "animated GIF": saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "BMP": saved(FRAMES[0], "BMP"),
    "WebP": saved(FRAMES[0], "WEBP"),
    "TIFF of floats": saved(FRAMES[0].convert("F"), "TIFF"),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
    "HEIC": b"\0\0\0\x1cftypheic" + bytes(100),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "ImageMagick vector graphics": b"push graphic-context\nfill 'url(https://x/)'\n",
    "shell script": b"#!/bin/sh\nid\n",
    "pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94.",
    "data URL": b"data:image/png;base64,iVBORw0KGgo=",
    "PNG without its first byte": PNG[1:],
    "PNG after a byte order mark": b"\xef\xbb\xbf" + PNG,
    "PNG with converted line ends": PNG.replace(b"\r\n", b"\n"),
    "JPEG without its first byte": JPEG[1:],
}
DAMAGED = {
    "PNG of width 0": built(header(0, 3), bytes(9)),
    "PNG of height 0": built(header(3, 0), bytes(9)),
    "JPEG of height 0": patched(JPEG, SOF + 5, b"\0\0"),
    "PNG signature only": SIGNATURE,
    "PNG header only": PNG[:33],
    "PNG without its end": PNG[:-12],
    "PNG short of 20 bytes": PNG[:-20],
    "PNG without pixels": SIGNATURE + header(3, 3) + chunk(b"IEND"),
    "PNG with too few pixels": built(header(30, 30), bytes(31 * 7)),
    "PNG without its last row": built(header(4, 4), b"\0\5\5\5\5" * 3),
    "PNG without its last pixel": built(header(4, 4), (b"\0\5\5\5\5" * 4)[:-1]),
    "interlaced PNG with too few pixels": built(header(8, 8, interlace=1), bytes(64)),
    "PNG with an empty pixel chunk": SIGNATURE + header(3, 3) + chunk(b"IDAT") + chunk(b"IEND"),
    "PNG with pixels that are not compressed": SIGNATURE + header(3, 3) + chunk(b"IDAT", bytes(40)) + chunk(b"IEND"),
    "PNG with a wrong checksum": patched(PNG, len(PNG) - 14, bytes([PNG[-14] ^ 1])),
    "PNG with a wrong header checksum": patched(PNG, 29, b"\0\0\0\0"),
    "PNG with a chunk longer than the file": SIGNATURE + header(3, 3) + b"\xff\xff\xff\xffIDAT",
    "PNG that does not start with its header": SIGNATURE + chunk(b"IDAT") + header(3, 3) + chunk(b"IEND"),
    "PNG with a short header": SIGNATURE + chunk(b"IHDR", bytes(5)) + PNG[33:],
    "PNG with a bit depth of 3": built(header(3, 3, depth=3), bytes(12)),
    "PNG with colour type 7": built(header(3, 3, colour_type=7), bytes(12)),
    "PNG with an unknown filter": built(header(3, 1), b"\x09abc"),
    "PNG with a short transparent colour": built(header(3, 3, 8, 2), bytes(30), chunk(b"tRNS", b"\0")),
    **{
        f"PNG of {depth} bits of colour type {colour_type}": built(header(3, 3, depth, colour_type), bytes(25 * 3))
        for depth, colour_type in [(0, 0), (5, 0), (32, 0), (1, 2), (4, 2), (16, 3), (1, 4), (4, 6), (8, 1), (8, 5)]
    },
    "PNG with another compression": SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 3, 8, 0, 1, 0, 0)) + PNG[33:],
    "PNG with another interlacing": built(header(3, 3, interlace=2), bytes(12)),
    "PNG without its palette": built(header(2, 1, 8, 3), b"\0\1\2"),
    "PNG with a palette of 300 colours": built(header(2, 1, 8, 3), b"\0\1\0", chunk(b"PLTE", bytes(900))),
    "PNG with 300 transparent entries": built(
        header(2, 1, 8, 3), b"\0\1\0", chunk(b"PLTE", bytes(6)), chunk(b"tRNS", bytes(300))
    ),
    "PNG with two headers": SIGNATURE + header(2, 1) + header(4, 4) + PNG[33:],
    "PNG with a second header behind its pixels": PNG[:-12] + header(9000, 9000) + chunk(b"IEND"),
    "PNG with a header of zeros": SIGNATURE + chunk(b"IHDR", bytes(13)) + PNG[33:],
    "PNG with a long header": SIGNATURE + chunk(b"IHDR", PNG[16:29] + bytes(9)) + PNG[33:],
    "PNG whose length is negative": PNG[:33] + b"\xff\xff\xff\xf0IDAT" + PNG[41:],
    "PNG whose pixels are cut short": SIGNATURE
    + header(9, 9)
    + chunk(b"IDAT", zlib.compress(bytes(90))[:5])
    + PNG[-12:],
    "PNG whose pixels are gzip": SIGNATURE + header(3, 3) + chunk(b"IDAT", b"\x1f\x8b" + bytes(20)) + PNG[-12:],
    "PNG whose checksums are zero": PNG[:37] + b"IDAT" + PNG[41:-16] + bytes(4) + PNG[-12:],
    "PNG with its end first": SIGNATURE + chunk(b"IEND") + PNG[8:],
    "PNG of its end only": SIGNATURE + chunk(b"IEND"),
    "PNG of zeros": SIGNATURE + bytes(5000),
    "PNG of ones": SIGNATURE + b"\xff" * 5000,
    "PNG with an unknown critical chunk": with_chunk(b"EViL", b"data"),
    "PNG with a chunk of no name": with_chunk(b"\0\0\0\0"),
    "JPEG of zeros": JPEG[:3] + bytes(5000),
    "JPEG of ones": JPEG[:3] + b"\xff" * 5000,
    "JPEG of width 0": patched(JPEG, SOF + 7, b"\0\0"),
    "JPEG of no components": patched(JPEG, SOF + 9, b"\0"),
    "JPEG of 255 components": patched(JPEG, SOF + 9, b"\xff"),
    "JPEG with a short frame header": JPEG[: SOF + 2] + b"\0\4" + JPEG[SOF + 4 :],
    "JPEG with sampling of 0": patched(JPEG, SOF + 11, b"\0"),
    "JPEG with sampling of 15": patched(JPEG, SOF + 11, b"\xff"),
    "JPEG with a quantisation table that is not there": patched(JPEG, SOF + 12, b"\3"),
    "JPEG arithmetic and lossless": patched(JPEG, SOF + 1, b"\xcb"),
    "JPEG hierarchical": patched(JPEG, SOF + 1, b"\xc5"),
    "JPEG-LS": patched(JPEG, SOF + 1, b"\xf7"),
    "JPEG with its end first": JPEG[:2] + b"\xff\xd9" + JPEG[2:],
    "JPEG with a segment of length 0": patched(JPEG, 4, b"\0\0"),
    "JPEG with a segment of length 1": patched(JPEG, 4, b"\0\1"),
    "JPEG with a segment longer than the file": patched(JPEG, 4, b"\xff\xff"),
    "JPEG with a scan longer than the file": patched(JPEG, SOS + 2, b"\xff\xff"),
    "JPEG with a scan of no components": patched(JPEG, SOS + 4, b"\0"),
    "JPEG with a scan of 9 components": patched(JPEG, SOS + 4, b"\x09"),
    "JPEG start only": b"\xff\xd8\xff",
    "JPEG without pixels": JPEG[:SOS] + b"\xff\xd9",
    "JPEG without a header": JPEG[:SOF] + JPEG[SOS:],
    "JPEG without its end marker": JPEG[:-2],
    "JPEG with junk between segments": JPEG[:2] + b"junk" + JPEG[2:],
    "JPEG with 12-bit samples": patched(JPEG, SOF + 4, b"\x0c"),
    "JPEG with two components": patched(JPEG, SOF + 9, b"\x02"),
    "lossless JPEG": patched(JPEG, SOF + 1, b"\xc3"),
    "JPEG without tables": JPEG[:2] + JPEG[SOF : SOF + 13] + JPEG[SOS:],
    "JPEG of two hundred scans": JPEG[:-2] + JPEG[SOS:-2] * 200 + b"\xff\xd9",
}
TOO_LARGE = {
    "PNG of 9000 x 9000": built(header(9000, 9000, depth=1), bytes(9000 * 1126)),
    "PNG of 4097 x 1": built(header(4097, 1), bytes(4098)),
    "PNG of 1 x 4097": built(header(1, 4097), bytes(2 * 4097)),
    "PNG that claims 2147483647 x 2147483647": built(header(2**31 - 1, 2**31 - 1), bytes(9)),
    "PNG that claims 4294967295 x 1": built(header(2**32 - 1, 1), bytes(9)),
    "PNG of RGB, 4096 x 4096": built(header(4096, 4096, 8, 2), bytes(1000)),
    "PNG of a transparent colour, 4096 x 4096": built(header(4096, 4096, 1), bytes(1000), chunk(b"tRNS", b"\0\1")),
    "PNG of 1 x 100000": built(header(1, 100_000), bytes(200_000)),
    "interlaced PNG of 8000 x 8000": built(header(8000, 8000, 1, interlace=1), bytes(1000)),
    "PNG of 16-bit RGBA, 5000 x 5000": built(header(5000, 5000, 16, 6), bytes(1000)),
    "palette PNG of 65535 x 65535": built(header(65535, 65535, 8, 3), b"", chunk(b"PLTE", bytes(6))),
    "JPEG of 4097 x 4097": patched(JPEG, SOF + 5, b"\x10\x01\x10\x01"),
    "progressive JPEG of 4096 x 4096": patched(patched(JPEG, SOF + 5, b"\x10\0\x10\0"), SOF + 1, b"\xc2"),
    "JPEG of 4096 x 4096 whose scan lacks colours": patched(
        COLOUR, COLOUR.index(b"\xff\xc0") + 5, b"\x10\0\x10\0"
    ).replace(COLOUR[COLOUR.index(b"\xff\xda") :][:14], segment(0xDA, b"\1\1\0\0\x3f\0")),
    "JPEG of 1 x 65535": patched(JPEG, SOF + 5, b"\xff\xff\0\1"),
    "JPEG that claims 65500 x 65500": patched(JPEG, SOF + 5, b"\xff\xdc\xff\xdc"),
    "JPEG of 4100 x 20": saved(Image.new("L", (4100, 20)), "JPEG"),
}
SEVERAL_FRAMES = {
    "animated PNG": saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    "PNG of two frames without the second": with_chunk(b"acTL", struct.pack(">II", 2, 0)),
    "PNG that is animated twice": PNG[:33] + chunk(b"acTL", struct.pack(">II", 5, 0)) * 2 + PNG[33:],
    "PNG that is still first and animated then": PNG[:33]
    + chunk(b"acTL", struct.pack(">II", 1, 0))
    + chunk(b"acTL", struct.pack(">II", 2, 0))
    + PNG[33:],
    "PNG that is animated behind its pixels": PNG[:-12] + chunk(b"acTL", struct.pack(">II", 2, 0)) + PNG[-12:],
    "PNG of 4294967295 frames": with_chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)),
}
# Defects that do not change the picture: it may be accepted or refused.
ODD = {
    "PNG of ten thousand text chunks": PNG[:33] + chunk(b"tEXt") * 10_000 + PNG[33:],
    "PNG of ten thousand pixel chunks": PNG[:33] + chunk(b"IDAT") * 10_000 + PNG[33:],
    "PNG with a short animation header": with_chunk(b"acTL", b"\0\0\0\1"),
    "JPEG with a thousand fill bytes": JPEG[:2] + b"\xff" * 1000 + JPEG[2:],
    "PNG with a palette of no colours": built(header(2, 1, 8, 3), b"\0\0\0", chunk(b"PLTE")),
    "PNG short of one byte": PNG[:-1],
    "PNG with an animation of no frames": with_chunk(b"acTL", bytes(8)),
    "PNG with a frame chunk": with_chunk(b"fdAT", b"\0\0\0\0" + zlib.compress(bytes(9))),
    "JPEG with two headers": JPEG[:SOS] + JPEG[SOF : SOF + 13] + JPEG[SOS:],
}
BROKEN_EXIF = {
    "JPEG with EXIF cut short": with_segment(0xE1, b"Exif\0\0" + orientation(6)[:12]),
    "JPEG with EXIF that promises 65535 tags": with_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "PNG with broken EXIF": with_chunk(b"eXIf", b"not TIFF at all"),
    "PNG with EXIF that points outside": with_chunk(b"eXIf", b"MM\0*\x7f\xff\xff\xff"),
    "JPEG with broken EXIF": with_segment(0xE1, b"Exif\0\0nonsense"),
}


# More segments, scans or blocks than encoders write, and segments that readers understand differently.
MANY_PARTS = {
    "JPEG of a thousand comments": JPEG[:2] + segment(0xFE, b"") * 1000 + JPEG[2:],
    "JPEG of a thousand headers": JPEG[:2] + segment(0xE0, b"JFIF\0") * 1000 + JPEG[2:],
    "PNG of 5000 empty chunks": PNG[:33] + chunk(b"tEXt", b"") * 5000 + PNG[33:],
    "JPEG of 250 tables": JPEG[:2] + segment(0xDB, b"\0" + bytes(range(1, 65))) * 250 + JPEG[2:],
    "JPEG with a marker without a length": JPEG[:2] + b"\xff\xd0" + JPEG[2:],
    "JPEG with a second beginning": JPEG[:2] + JPEG,
    "JPEG with two headers": JPEG[:SOF] + segment(0xC0, JPEG[SOF + 4 : SOF + 13]) + JPEG[SOF:],
    "PNG of empty blocks": SIGNATURE
    + header(64, 64)
    + chunk(b"IDAT", empty_blocks(200_000, bytes(65 * 64)))
    + chunk(b"IEND"),
    "JPEG of markers only": JPEG[:2] + b"\xff\xe0\0\2" * 100_000,
    "JPEG of 21 scans": scanned(FRAMES[0], 21),
    "JPEG of 99 scans": scanned(FRAMES[0], 99),
}
# Small bodies that take long to decode: each file alone is accepted, all together are refused.
TOO_MUCH: dict[str, list[bytes]] = {
    "64 JPEGs of 20 scans of 1024 x 1024": [scanned(Image.new("RGB", (1024, 1024), (1, 200, 3)), 20)] * 64,
    "64 interlaced PNGs of 16-bit RGBA of 700 x 700": [built(header(700, 700, 16, 6, 1), bytes(8 * 700**2 + 2**14))]
    * 64,
    "64 PNGs of empty blocks": [
        SIGNATURE + header(64, 64) + chunk(b"IDAT", empty_blocks(10_000, bytes(65 * 64))) + chunk(b"IEND")
    ]
    * 64,
    "12 PNGs of 1900 x 1900": [built(header(1900, 1900), bytes(1901 * 1900))] * 12,
    "64 PNGs of 600 x 600": [built(header(600, 600), bytes(601 * 600))] * 64,
}
# All of these are refused.
BAD: dict[str, bytes] = {**FOREIGN, **DAMAGED, **TOO_LARGE, **SEVERAL_FRAMES, **MANY_PARTS}

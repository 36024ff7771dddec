import math
import struct
import tracemalloc
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from app.errors import InvalidImage
from app.images.decode import count_pixels, decode_image
from tests.corpus.files import (
    BOMB,
    BROKEN_NOTES,
    DAMAGED,
    DRAWING,
    FOREIGN,
    FRAMES,
    GREY,
    JPEG,
    MANY_PARTS,
    ODD,
    PHOTO,
    PNG,
    SEVERAL_FRAMES,
    SIGNATURE,
    TOO_LARGE,
    TOO_MUCH,
    built,
    chunk,
    header,
    orientation,
    saved,
    scanned,
    with_chunk,
    with_segment,
)


def assert_picture_or_refusal(content: bytes) -> None:
    try:
        picture = decode_image(content)
    except InvalidImage:
        return
    assert max(picture.luminance.shape) <= 1024
    assert 0 <= picture.luminance.min() <= picture.luminance.max() <= 1


def named(cases: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("content", cases.values(), ids=cases.keys())


@named(FOREIGN)
def test_other_formats_are_refused_with_the_accepted_ones_named(content):
    with pytest.raises(InvalidImage, match="send a PNG or a JPEG"):
        decode_image(content)


@named(DAMAGED)
def test_damaged_files_are_refused(content):
    with pytest.raises(InvalidImage):
        decode_image(content)


@named(ODD)
def test_odd_files_give_a_picture_or_a_refusal_and_nothing_else(content):
    assert_picture_or_refusal(content)


@named(BROKEN_NOTES)
def test_a_picture_whose_exif_is_broken_is_read_as_it_lies(content):
    assert decode_image(content).luminance == pytest.approx(GREY / 255, abs=0.03)


@named(TOO_LARGE)
def test_sizes_beyond_the_limit_are_refused_with_the_limit_named(content):
    with pytest.raises(InvalidImage, match="between 1 and 1024 pixels"):
        decode_image(content)


@named(SEVERAL_FRAMES)
def test_more_than_one_frame_is_refused(content):
    with pytest.raises(InvalidImage, match="more than one frame"):
        decode_image(content)


def test_an_animated_png_of_one_frame_is_a_still():
    once, control = (
        chunk(b"acTL", struct.pack(">II", 1, 0)),
        chunk(b"fcTL", struct.pack(">5I", 0, 32, 24, 0, 0) + bytes(6)),
    )
    for chunks in (once, once * 2, once + control):
        content = PNG[:33] + chunks + PNG[33:]
        assert np.array_equal(decode_image(content).luminance, decode_image(PNG).luminance)


@pytest.mark.parametrize("content", [PNG, DRAWING, JPEG, PHOTO], ids=["png", "alpha png", "jpeg", "photo"])
def test_a_file_cut_anywhere_is_refused(content):
    decode_image(content)
    # The last four bytes of a PNG are the checksum of its empty end.
    for end in range(0, len(content) - 4, max(1, len(content) // 60)):
        with pytest.raises(InvalidImage):
            decode_image(content[:end])


@pytest.mark.parametrize("content", [PNG, DRAWING, JPEG, PHOTO], ids=["png", "alpha png", "jpeg", "photo"])
def test_flipped_bits_give_a_picture_or_a_refusal_and_nothing_else(content):
    random = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(content)
        for at in random.integers(0, min(len(content), 700), size=random.integers(1, 4)):
            broken[at] ^= 1 << int(random.integers(8))
        assert_picture_or_refusal(bytes(broken))


def test_flipped_bits_of_a_png_with_mended_checksums_give_a_picture_or_a_refusal():
    random = np.random.default_rng(8)
    ihdr = bytearray(PNG[16:29])
    pixels = bytearray(zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY)))
    for _ in range(200):
        part = [ihdr, pixels][int(random.integers(2))].copy()
        part[int(random.integers(len(part)))] ^= 1 << int(random.integers(8))
        data = (part, pixels) if len(part) == len(ihdr) else (ihdr, part)
        content = SIGNATURE + chunk(b"IHDR", bytes(data[0])) + chunk(b"IDAT", bytes(data[1])) + chunk(b"IEND")
        assert_picture_or_refusal(content)


def test_a_refusal_does_not_repeat_what_was_sent():
    for content in [*FOREIGN.values(), *DAMAGED.values(), *TOO_LARGE.values(), *SEVERAL_FRAMES.values()]:
        with pytest.raises(InvalidImage) as refusal:
            decode_image(content)
        detail = refusal.value.detail
        assert not any(word in detail for word in ("EViL", "html", "9000", "65500", "Pillow", "BytesIO", "struct"))


def test_nothing_of_pillow_or_of_the_warning_filters_is_changed():
    def state() -> tuple[object, ...]:
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    before = state()
    decode_image(PHOTO)
    with pytest.raises(InvalidImage):
        decode_image(TOO_LARGE["PNG of 9000 x 9000"])
    assert state() == before


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"zTXt", b"bomb\0\0" + BOMB),
        with_chunk(b"iTXt", b"bomb\0\1\0\0\0" + BOMB),
        with_chunk(b"iCCP", b"bomb\0\0" + BOMB),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_metadata_that_would_unpack_to_megabytes_is_never_unpacked(content, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", None)  # calling it would be a refusal
    assert decode_image(content).luminance == pytest.approx(GREY / 255)


@named(MANY_PARTS)
def test_a_file_of_very_many_parts_is_refused(content):
    with pytest.raises(InvalidImage):
        decode_image(content)


def test_as_many_scans_as_may_be_are_read_whatever_the_preview_has():
    image = Image.fromarray(GREY)
    preview = with_segment(0xE1, b"Exif\0\0" + orientation(1) + scanned(image, 20))[2 : -len(JPEG) + 2]
    content = scanned(image, 20)
    assert np.array_equal(decode_image(content[:2] + preview + content[2:]).luminance, decode_image(content).luminance)
    with pytest.raises(InvalidImage, match="more than 20 scans"):
        decode_image(scanned(image, 21))


@named({name: contents[0] for name, contents in TOO_MUCH.items()})
def test_pixels_are_counted_as_the_header_has_them(content):
    luminance = decode_image(content).luminance
    assert count_pixels(content) == luminance.size
    with pytest.raises(InvalidImage, match="between 1 and 255 pixels"):
        count_pixels(content, max_side=255)


@named(FOREIGN)
def test_pixels_of_other_formats_are_not_counted(content):
    with pytest.raises(InvalidImage, match="send a PNG or a JPEG"):
        count_pixels(content)


def test_a_png_in_small_pieces_is_read():
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    pieces = b"".join(chunk(b"IDAT", pixels[at : at + 4]) for at in range(0, len(pixels), 4))
    content = SIGNATURE + header(32, 24) + pieces + chunk(b"IEND")
    assert decode_image(content).luminance == pytest.approx(GREY / 255)


@pytest.mark.parametrize(
    ("ihdr", "row", "colour", "alpha"),
    [
        (header(4, 1, 2), b"\0\x1b", b"\0\1", [1, 0, 1, 1]),
        (header(4, 1, 4), b"\0\x05\xaf", b"\0\5", [1, 0, 1, 1]),
        (header(4, 1, 2), b"\0\x1b", b"\xff\xfd", [1, 0, 1, 1]),
        (header(4, 1, 8), b"\0\7\1\7\1", b"\1\7", [0, 1, 0, 1]),
        (header(2, 1, 8, 2), b"\0\1\2\3\4\5\6", b"\1\1\1\2\1\3", [0, 1]),
        (header(2, 1, 16, 2), b"\0\1\2\3\4\5\6\2\2\3\4\5\6", b"\1\2\3\4\5\6", [0, 1]),
    ],
    ids=["2 bits", "4 bits", "2 bits, more set", "8 bits, more set", "RGB, more set", "RGB of 16 bits"],
)
def test_a_transparent_colour_has_the_depth_of_the_pixels(ihdr, row, colour, alpha):
    picture = decode_image(built(ihdr, row, chunk(b"tRNS", colour)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [alpha]


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"tEXt", b"long\0" + bytes(2_000_000)),
        with_chunk(b"tRNS", b"\xff\xff"),
        with_chunk(b"gAMA", b"short"),
        with_chunk(b"eXIf", orientation(0)),
        PNG + b"trailing bytes",
    ],
    ids=["tEXt", "tRNS", "gAMA", "orientation 0", "after the end"],
)
def test_what_is_not_pixels_does_not_matter(content):
    assert np.array_equal(decode_image(content).luminance, decode_image(PNG).luminance)


def test_of_several_pictures_in_a_jpeg_the_first_is_read():
    # Phones append previews and gain maps to photos in this way.
    pictures = saved(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:], quality=95)
    assert np.abs(decode_image(pictures).luminance - GREY / 255).max() < 0.03


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_grey_pixels_come_back_exactly_in_every_png_mode(mode):
    picture = decode_image(saved(Image.fromarray(GREY).convert(mode), "PNG"))
    assert picture.luminance.dtype == np.float32
    assert np.array_equal(picture.luminance, GREY.astype(np.float32) / np.float32(255))
    assert picture.alpha is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_pixels_come_back_closely_in_every_mode(mode, options):
    content = saved(Image.fromarray(GREY).convert(mode), "JPEG", quality=95, **options)
    assert np.abs(decode_image(content).luminance - GREY / 255).max() < 0.03


def test_colour_becomes_luma():
    colours = Image.new("RGB", (3, 1))
    for x, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        colours.putpixel((x, 0), colour)
    assert decode_image(saved(colours, "PNG")).luminance[0] == pytest.approx([0.299, 0.587, 0.114], abs=0.003)


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 1, 256, 32768, 65535]], dtype=np.uint16)
    luminance = decode_image(saved(Image.fromarray(values), "PNG")).luminance
    assert luminance[0] == pytest.approx(values[0] / 65535, abs=1e-7)


def test_sixteen_bit_colour_and_alpha_are_scaled():
    pixel = struct.pack(">4H", 0x8000, 0x8000, 0x8000, 0x4000)
    picture = decode_image(built(header(1, 1, 16, 6), b"\0" + pixel))
    assert picture.luminance[0, 0] == pytest.approx(0.5, abs=0.005)
    assert picture.alpha is not None
    assert picture.alpha[0, 0] == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(
    ("depth", "row", "luminance"),
    [(1, b"\0\x50", [0, 1, 0, 1]), (2, b"\0\x1b", [0, 1 / 3, 2 / 3, 1]), (4, b"\0\x05\xaf", [0, 1 / 3, 2 / 3, 1])],
)
def test_few_bits_are_scaled(depth, row, luminance):
    assert decode_image(built(header(4, 1, depth), row)).luminance[0] == pytest.approx(luminance)


def test_an_alpha_channel_is_kept():
    image = Image.fromarray(GREY).convert("LA")
    image.putalpha(Image.fromarray(GREY[::-1]))
    picture = decode_image(saved(image, "PNG"))
    assert picture.alpha is not None
    assert picture.alpha == pytest.approx(GREY[::-1] / 255)


@pytest.mark.parametrize(
    ("ihdr", "row", "colour"),
    [
        (header(4, 1, 1), b"\0\x50", b"\0\1"),
        (header(4, 1, 8), b"\0\0\7\1\7", b"\0\7"),
        (header(4, 1, 16), b"\0\0\1\7\7\7\1\7\7", b"\7\7"),
        (header(4, 1, 8, 2), b"\0\1\2\4\1\2\3\3\2\1\1\2\3", b"\0\1\0\2\0\3"),
        (header(4, 1, 8, 3), b"\0\0\1\0\1", b"\xff\0"),
        (header(4, 1, 8, 3), b"\0\2\1\2\1", b"\xff\0\xff"),
    ],
    ids=["1 bit", "8 bits", "16 bits", "RGB", "palette entry", "palette"],
)
def test_a_transparent_colour_becomes_alpha(ihdr, row, colour):
    palette = chunk(b"PLTE", bytes(range(9)))
    picture = decode_image(built(ihdr, row, palette, chunk(b"tRNS", colour)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[1, 0, 1, 0]]


def test_partly_transparent_palette_entries_are_kept():
    content = built(
        header(3, 1, 8, 3), b"\0\0\1\2", chunk(b"PLTE", bytes([9] * 9)), chunk(b"tRNS", bytes([0, 51, 255]))
    )
    alpha = decode_image(content).alpha
    assert alpha is not None
    assert alpha[0] == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(value, order):
    exif = orientation(value, order)
    for content in (with_chunk(b"eXIf", exif), with_segment(0xE1, b"Exif\0\0" + exif)):
        with Image.open(BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert decode_image(content).luminance == pytest.approx(expected / 255)


def test_alpha_turns_with_the_picture():
    image = Image.fromarray(np.dstack([GREY, GREY]))
    content = saved(image, "PNG", exif=b"Exif\0\0" + orientation(6))
    picture = decode_image(content)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, picture.luminance)
    assert picture.alpha.shape == (32, 24)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_limit_itself_is_accepted_and_can_be_set(form):
    content = saved(Image.new("L", (40, 30), 200), form)
    assert decode_image(content, max_side=40).luminance.shape == (30, 40)
    with pytest.raises(InvalidImage, match="between 1 and 39"):
        decode_image(content, max_side=39)


def test_an_interlaced_png_is_read():
    # Adam7 shows a 3 x 2 picture in four passes: (0, 0), then (2, 0), then (1, 0), then the second row.
    rows = b"\0\x00" + b"\0\x66" + b"\0\x33" + b"\0\x99\xcc\xff"
    luminance = decode_image(built(header(3, 2, interlace=1), rows)).luminance
    assert luminance == pytest.approx(np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]]))


# Bits a sample, kind of colour, and samples a pixel: all that there are (PNG, section 11.2.1).
PIXELS = [(bits, 0, 1) for bits in (1, 2, 4, 8, 16)] + [(bits, 3, 1) for bits in (1, 2, 4, 8)]
PIXELS += [(bits, colour, samples) for bits in (8, 16) for colour, samples in ((2, 3), (4, 2), (6, 4))]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("bits", "colour", "samples"), PIXELS)
def test_a_png_short_of_one_byte_of_its_pixels_is_refused(bits, colour, samples, interlace):
    def row(columns):
        return 1 + math.ceil(columns * bits * samples / 8)

    # Adam7 shows a 5 x 3 picture in six passes: three of a pixel, then 3 x 1, 2 x 2 and 5 x 1.
    taken = 3 * row(1) + row(3) + 2 * row(2) + row(5) if interlace else 3 * row(5)
    ihdr = header(5, 3, bits, colour, interlace)
    palette = [chunk(b"PLTE", bytes(3 * 2**bits))] if colour == 3 else []
    assert decode_image(built(ihdr, bytes(taken), *palette)).luminance.shape == (3, 5)
    assert decode_image(built(ihdr, bytes(taken + 9), *palette)).luminance.shape == (3, 5)
    with pytest.raises(InvalidImage, match="cut short"):
        decode_image(built(ihdr, bytes(taken - 1), *palette))


def test_rows_are_counted_over_all_pieces():
    pixels = zlib.compress(bytes(1025 * 1023), 0)
    pieces = b"".join(chunk(b"IDAT", pixels[at : at + 8192]) for at in range(0, len(pixels), 8192))
    end = chunk(b"IEND")
    assert decode_image(SIGNATURE + header(1024, 1023) + pieces + end).luminance.shape == (1023, 1024)
    with pytest.raises(InvalidImage, match="cut short"):
        decode_image(SIGNATURE + header(1024, 1024) + pieces + end)


def test_no_more_of_a_png_is_unpacked_than_its_sides_take():
    content = SIGNATURE + header(4, 4) + chunk(b"IDAT", BOMB) + chunk(b"IEND")
    tracemalloc.start()
    try:
        decode_image(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_one_pixel_is_a_picture():
    assert decode_image(built(header(1, 1), b"\0\x33")).luminance.tolist() == [[pytest.approx(0.2)]]


def test_want_of_memory_is_not_the_fault_of_the_image(monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", full)
    with pytest.raises(MemoryError):
        decode_image(PNG)

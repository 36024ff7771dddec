"""Bytes of an upload to luminance and alpha: every form of PNG and JPEG, and hostile files."""

import math
import re
import struct
import tracemalloc
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from app.errors import InvalidImage
from app.images.decode import decode_image, estimate_cost
from tests.corpus.files import (
    BOMB,
    BROKEN_EXIF,
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

VALID = {"PNG": PNG, "transparent PNG": DRAWING, "JPEG": JPEG, "photo": PHOTO}


def named(cases: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("content", cases.values(), ids=cases.keys())


def assert_picture_or_refusal(content: bytes) -> None:
    try:
        picture = decode_image(content)
    except InvalidImage:
        return
    assert max(picture.luminance.shape) <= 1024
    assert 0 <= picture.luminance.min() <= picture.luminance.max() <= 1


@named(FOREIGN | DAMAGED | TOO_LARGE | SEVERAL_FRAMES | MANY_PARTS)
def test_hostile_files_are_refused_without_details_of_the_file_or_the_library(content):
    with pytest.raises(InvalidImage) as refusal:
        decode_image(content)
    assert not any(word in refusal.value.detail for word in ("EViL", "html", "9000", "65500", "Pillow", "struct"))


@named(FOREIGN | TOO_LARGE)
def test_the_cost_of_a_file_with_a_bad_header_is_not_estimated(content):
    with pytest.raises(InvalidImage):
        estimate_cost(content)


@named(ODD)
def test_files_with_a_harmless_defect_give_a_picture_or_a_refusal(content):
    assert_picture_or_refusal(content)


@named(BROKEN_EXIF)
def test_a_file_with_broken_exif_is_decoded_without_rotation(content):
    assert decode_image(content).luminance == pytest.approx(GREY / 255, abs=0.03)


@named(VALID)
def test_a_truncated_file_is_refused(content):
    decode_image(content)
    for end in range(0, len(content), max(1, len(content) // 60)):
        with pytest.raises(InvalidImage):
            decode_image(content[:end])


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    st.sampled_from(list(VALID.values())),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 7)), min_size=1, max_size=3),
)
def test_a_file_with_flipped_bits_gives_a_picture_or_a_refusal(content, flips):
    broken = bytearray(content)
    for at, bit in flips:
        broken[at % len(content)] ^= 1 << bit
    assert_picture_or_refusal(bytes(broken))


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.booleans())
def test_a_png_with_flipped_bits_and_valid_checksums_gives_a_picture_or_a_refusal(at, bit, in_header):
    parts = [bytearray(PNG[16:29]), bytearray(zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY)))]
    broken = parts[0 if in_header else 1]
    broken[at % len(broken)] ^= 1 << bit
    ihdr, pixels = map(bytes, parts)
    assert_picture_or_refusal(SIGNATURE + chunk(b"IHDR", ihdr) + chunk(b"IDAT", pixels) + chunk(b"IEND"))


def test_global_state_of_pillow_and_of_the_warning_filters_is_left_alone():
    def state() -> tuple[object, ...]:
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    before = state()
    decode_image(PHOTO)
    with pytest.raises(InvalidImage):
        decode_image(TOO_LARGE["PNG of 9000 x 9000"])
    assert state() == before


def test_a_lack_of_memory_is_not_reported_as_an_invalid_image(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(MemoryError):
        decode_image(PNG)


@named(
    {
        "zTXt": with_chunk(b"zTXt", b"bomb\0\0" + BOMB),
        "iTXt": with_chunk(b"iTXt", b"bomb\0\1\0\0\0" + BOMB),
        "iCCP": with_chunk(b"iCCP", b"bomb\0\0" + BOMB),
        "more pixels than the header says": built(header(4, 4), bytes(20), chunk(b"IDAT", BOMB)),
    }
)
def test_a_decompression_bomb_is_not_decompressed(content):
    tracemalloc.start()
    try:
        assert_picture_or_refusal(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_jpeg_of_twenty_scans_is_decoded_whatever_its_preview_has():
    image = Image.fromarray(GREY)
    content = scanned(image, 20)
    preview = with_segment(0xE1, b"Exif\0\0" + orientation(1) + content)[2 : -len(JPEG) + 2]
    assert np.array_equal(decode_image(content[:2] + preview + content[2:]).luminance, decode_image(content).luminance)


@named({name: contents[0] for name, contents in TOO_MUCH.items()})
def test_a_file_is_decoded_up_to_its_estimated_cost(content):
    cost = estimate_cost(content)
    assert decode_image(content, max_cost_ms=cost).luminance.size > 0
    for refuse in (estimate_cost, decode_image):
        with pytest.raises(InvalidImage):
            refuse(content, max_cost_ms=0.99 * cost)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_longest_side_is_accepted_and_configurable(form):
    content = saved(Image.new("L", (40, 30), 200), form)
    assert decode_image(content, max_side=40).luminance.shape == (30, 40)
    with pytest.raises(InvalidImage):
        decode_image(content, max_side=39)


def photo(width: int, height: int, **options: object) -> bytes:
    """A JPEG of a vertical gradient with the grain of a camera."""
    grain = np.random.default_rng(0).normal(0, 12, (256, 256))
    grey = np.linspace(60, 200, height)[:, None] + np.resize(
        np.tile(grain, (1, math.ceil(width / 256))), (height, width)
    )
    return saved(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB"), "JPEG", **options)


def test_a_photo_of_twelve_megapixels_and_four_megabytes_is_decoded_at_a_reduced_scale():
    content = photo(4000, 3000, quality=88)
    assert len(content) > 4_000_000
    luminance = decode_image(content).luminance
    assert luminance.shape == (750, 1000)
    assert luminance.mean(axis=1) == pytest.approx(np.linspace(60, 200, 750) / 255, abs=0.02)


@pytest.mark.parametrize("value", [1, 3, 6])
def test_a_large_photo_is_turned_upright(value):
    content = photo(1400, 1200, exif=b"Exif\0\0" + orientation(value))
    with Image.open(BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("L").reduce(2)
    assert np.abs(decode_image(content).luminance - np.asarray(expected) / 255).max() < 0.03


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"])
def test_a_large_png_of_any_mode_is_reduced(mode):
    grey = np.repeat(np.repeat(GREY, 36, axis=0), 36, axis=1)
    if mode == "1":
        grey = np.where(grey < 128, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey)
    luminance = decode_image(saved(image if mode == "I;16" else image.convert(mode), "PNG")).luminance
    assert luminance.shape == (432, 576)
    assert np.abs(luminance - grey[::2, ::2] / 255).max() < 0.005


def test_transparent_pixels_do_not_shine_through_where_a_large_picture_is_reduced():
    grey, alpha = np.zeros((2, 1100, 1100), dtype=np.uint8)
    grey[::2], alpha[1::2] = 255, 255  # white and transparent, black and opaque by turns
    picture = decode_image(saved(Image.fromarray(np.dstack([grey, alpha])), "PNG"))
    assert picture.alpha is not None
    assert np.abs(picture.alpha - 0.5).max() < 0.01
    assert picture.luminance.max() == 0


@pytest.mark.parametrize(
    ("form", "mode", "size"), [("PNG", "RGB", (2000, 1500)), ("PNG", "L", (5000, 3)), ("JPEG", "RGB", (3000, 4000))]
)
def test_the_refusal_of_a_large_image_names_a_size_that_is_accepted(form, mode, size):
    options = {"progressive": True} if form == "JPEG" else {}
    with pytest.raises(InvalidImage) as refusal:
        decode_image(saved(Image.new(mode, size), form, **options))
    found = re.search(r"(\d+) pixels", refusal.value.detail)
    assert found is not None
    image = Image.new(mode, size)
    image.thumbnail((int(found[1]), int(found[1])))
    decode_image(saved(image, form, **options))


def test_pictures_behind_the_first_of_a_jpeg_cost_nothing():
    assert estimate_cost(JPEG + JPEG) == estimate_cost(JPEG)


def test_scans_that_are_kept_cost_more_than_one_that_is_decoded_as_it_is_read():
    image = Image.fromarray(GREY).convert("RGB").resize((800, 600))
    costs = [estimate_cost(content) for content in (saved(image, "JPEG"), scanned(image, 10), scanned(image, 20))]
    assert costs == sorted(costs)
    assert costs[0] < costs[1] < costs[2]


@named(
    {
        "tEXt": with_chunk(b"tEXt", b"long\0" + bytes(2_000_000)),
        "tRNS": with_chunk(b"tRNS", b"\xff\xff"),
        "gAMA": with_chunk(b"gAMA", b"short"),
        "orientation 0": with_chunk(b"eXIf", orientation(0)),
        "orientation 9": with_chunk(b"eXIf", orientation(9)),
        "animation of one frame": with_chunk(b"acTL", struct.pack(">II", 1, 0)),
        "trailing bytes": PNG + b"trailing bytes",
    }
)
def test_ancillary_data_of_a_png_is_ignored(content):
    assert np.array_equal(decode_image(content).luminance, decode_image(PNG).luminance)


def test_of_several_pictures_in_a_jpeg_the_first_is_decoded():
    # Phones append previews and gain maps to photos in this way.
    pictures = saved(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:], quality=95)
    assert np.abs(decode_image(pictures).luminance - GREY / 255).max() < 0.03


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_any_mode_gives_its_grey_levels_exactly(mode):
    picture = decode_image(saved(Image.fromarray(GREY).convert(mode), "PNG"))
    assert picture.luminance.dtype == np.float32
    assert np.array_equal(picture.luminance, GREY.astype(np.float32) / np.float32(255))
    assert picture.alpha is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_any_mode_gives_its_grey_levels_closely(mode, options):
    content = saved(Image.fromarray(GREY).convert(mode), "JPEG", quality=95, **options)
    assert np.abs(decode_image(content).luminance - GREY / 255).max() < 0.03


def test_colour_becomes_luma():
    content = built(header(3, 1, 8, 2), b"\0" + bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    assert decode_image(content).luminance[0] == pytest.approx([0.299, 0.587, 0.114], abs=0.003)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 1, 256, 32768, 65535]], dtype=np.uint16)
    luminance = decode_image(saved(Image.fromarray(values), "PNG")).luminance
    assert luminance[0] == pytest.approx(values[0] / 65535, abs=1e-7)


def test_sixteen_bit_colour_and_alpha_are_scaled():
    picture = decode_image(built(header(1, 1, 16, 6), b"\0" + struct.pack(">4H", 0x8000, 0x8000, 0x8000, 0x4000)))
    assert picture.luminance[0, 0] == pytest.approx(0.5, abs=0.005)
    assert picture.alpha is not None
    assert picture.alpha[0, 0] == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(
    ("depth", "row", "luminance"),
    [(1, b"\0\x50", [0, 1, 0, 1]), (2, b"\0\x1b", [0, 1 / 3, 2 / 3, 1]), (4, b"\0\x05\xaf", [0, 1 / 3, 2 / 3, 1])],
)
def test_fewer_than_eight_bits_are_scaled(depth, row, luminance):
    assert decode_image(built(header(4, 1, depth), row)).luminance[0] == pytest.approx(luminance)


def test_an_interlaced_png_is_decoded():
    # Adam7 shows a 3 x 2 picture in four passes: (0, 0), then (2, 0), then (1, 0), then the second row.
    rows = b"\0\x00" + b"\0\x66" + b"\0\x33" + b"\0\x99\xcc\xff"
    luminance = decode_image(built(header(3, 2, interlace=1), rows)).luminance
    assert luminance == pytest.approx(np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]]))


@pytest.mark.parametrize(
    ("ihdr", "row", "colour", "alpha"),
    [
        (header(4, 1, 1), b"\0\x50", b"\0\1", [1, 0, 1, 0]),
        (header(4, 1, 2), b"\0\x1b", b"\0\1", [1, 0, 1, 1]),
        (header(4, 1, 2), b"\0\x1b", b"\xff\xfd", [1, 0, 1, 1]),
        (header(4, 1, 4), b"\0\x05\xaf", b"\0\5", [1, 0, 1, 1]),
        (header(4, 1, 8), b"\0\7\1\7\1", b"\1\7", [0, 1, 0, 1]),
        (header(4, 1, 16), b"\0\0\1\7\7\7\1\7\7", b"\7\7", [1, 0, 1, 0]),
        (header(2, 1, 8, 2), b"\0\1\2\3\4\5\6", b"\1\1\1\2\1\3", [0, 1]),
        (header(2, 1, 16, 2), b"\0\1\2\3\4\5\6\2\2\3\4\5\6", b"\1\2\3\4\5\6", [0, 1]),
        (header(4, 1, 8, 3), b"\0\0\1\0\1", b"\xff\0", [1, 0, 1, 0]),
        (header(3, 1, 8, 3), b"\0\0\1\2", bytes([0, 51, 255]), [0, 0.2, 1]),
    ],
    ids=[
        "1 bit",
        "2 bits",
        "2 bits, high bits set",
        "4 bits",
        "8 bits, high bits set",
        "16 bits",
        "RGB, high bits set",
        "16-bit RGB",
        "palette entry",
        "palette",
    ],
)
def test_a_transparent_colour_becomes_alpha(ihdr, row, colour, alpha):
    picture = decode_image(built(ihdr, row, chunk(b"PLTE", bytes(range(9))), chunk(b"tRNS", colour)))
    assert picture.alpha is not None
    assert picture.alpha[0] == pytest.approx(alpha)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_exif_orientation_is_applied(value, order):
    exif = orientation(value, order)
    for content in (with_chunk(b"eXIf", exif), with_segment(0xE1, b"Exif\0\0" + exif)):
        with Image.open(BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert decode_image(content).luminance == pytest.approx(expected / 255)


def test_alpha_is_kept_and_rotated_with_the_picture():
    image = Image.fromarray(np.dstack([GREY, GREY[::-1]]))
    picture = decode_image(saved(image, "PNG", exif=b"Exif\0\0" + orientation(6)))
    assert picture.alpha is not None
    assert picture.alpha == pytest.approx(np.rot90(GREY[::-1], -1) / 255)
    assert picture.luminance == pytest.approx(np.rot90(GREY, -1) / 255)


# Bit depth, colour type and samples a pixel: all that there are (PNG, section 11.2.1).
PIXELS = [(depth, 0, 1) for depth in (1, 2, 4, 8, 16)] + [(depth, 3, 1) for depth in (1, 2, 4, 8)]
PIXELS += [(depth, colour, samples) for depth in (8, 16) for colour, samples in ((2, 3), (4, 2), (6, 4))]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("depth", "colour", "samples"), PIXELS)
def test_a_png_that_lacks_one_byte_of_its_pixels_is_refused(depth, colour, samples, interlace):
    def row(columns):
        return 1 + math.ceil(columns * depth * samples / 8)

    # Adam7 shows a 5 x 3 picture in six passes: three of a pixel, then 3 x 1, 2 x 2 and 5 x 1.
    size = 3 * row(1) + row(3) + 2 * row(2) + row(5) if interlace else 3 * row(5)
    ihdr = header(5, 3, depth, colour, interlace)
    palette = [chunk(b"PLTE", bytes(3 * 2**depth))] if colour == 3 else []
    assert decode_image(built(ihdr, bytes(size), *palette)).luminance.shape == (3, 5)
    with pytest.raises(InvalidImage):
        decode_image(built(ihdr, bytes(size - 1), *palette))


def test_a_png_with_its_pixels_in_small_chunks_is_decoded():
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    pieces = b"".join(chunk(b"IDAT", pixels[at : at + 4]) for at in range(0, len(pixels), 4))
    assert decode_image(SIGNATURE + header(32, 24) + pieces + chunk(b"IEND")).luminance == pytest.approx(GREY / 255)

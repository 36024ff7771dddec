"""The PNG and APNG writer, read back by Pillow and chunk by chunk."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from app.images.png import animation, still
from tests.conftest import FIXTURES

Pixels = NDArray[np.uint8]

DIGITS = sorted((FIXTURES / "mnist").glob("*.png"))
NOISE = np.random.default_rng(1).integers(0, 256, size=(300, 301)).astype(np.uint8)
SHAPES = [(1, 1), (1, 7), (7, 1), (3, 5), (28, 28), (28, 28 * 64), (300, 301)]


def pixels(content: bytes) -> Pixels:
    with Image.open(BytesIO(content)) as image:
        image.verify()  # compares the checksums
    with Image.open(BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    place = 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, held = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        assert checksum == zlib.crc32(kind + held)
        yield kind, held
        place += 12 + length
    assert place == len(content)


def enlarged(image: Pixels, scale: int) -> Pixels:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1, 2, 3, 16])
@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp"])
def test_a_still_image_of_any_size_and_scale_comes_back(shape, scale, kind):
    height, width = shape
    image = {
        "noise": NOISE[:height, :width] if width <= 301 else np.resize(NOISE, shape),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "ramp": np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8),
    }[kind]
    assert np.array_equal(pixels(still(image, scale)), enlarged(image, scale))


def test_pixels_need_not_lie_in_a_row_in_memory():
    image = NOISE.T[::2, 3:50]
    assert np.array_equal(pixels(still(image, 2)), enlarged(image, 2))


def test_a_still_image_has_the_three_chunks_it_needs_with_right_checksums():
    found = dict(chunks(still(NOISE, 2)))
    assert list(found) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", found[b"IHDR"]) == (602, 600, 8, 0, 0, 0, 0)


@pytest.mark.parametrize("scale", [1, 4])
def test_digits_are_smaller_than_pillow_makes_them(scale):
    ours = theirs = 0
    for path in DIGITS:
        image = pixels(path.read_bytes())
        file = BytesIO()
        Image.fromarray(enlarged(image, scale)).save(file, "PNG")
        theirs += len(file.getvalue())
        ours += len(still(image, scale))
    assert ours < theirs


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 0, 0], [0, 1, 1, 1, 2, 2], [4, 4, 0, 4, 4]])
def test_every_image_is_a_frame_of_its_own_shown_for_its_time(order, scale):
    images = NOISE[: 5 * 20, :30].reshape(5, 20, 30).copy()
    images[4] = 0
    content = animation(images[order], scale, 70)
    with Image.open(BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == len(order)
        assert image.info["loop"] == 0
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            assert frame.info["duration"] == 70
            assert np.array_equal(np.asarray(frame.convert("L")), enlarged(images[order[number]], scale))


def test_the_chunks_of_an_animation_are_in_order_and_numbered_together():
    found = list(chunks(animation(np.stack([NOISE, NOISE, NOISE]), 1, 80)))
    kinds = [kind for kind, _ in found]
    assert kinds == [b"IHDR", b"acTL", b"fcTL", b"IDAT", b"fcTL", b"fdAT", b"fcTL", b"fdAT", b"IEND"]
    assert found[1][1] == struct.pack(">II", 3, 0)
    numbered = [held for kind, held in found if kind in {b"fcTL", b"fdAT"}]
    assert [struct.unpack_from(">I", held)[0] for held in numbered] == [0, 1, 2, 3, 4]
    assert found[2][1] == struct.pack(">IIIIIHHBB", 0, 301, 300, 0, 0, 80, 1000, 0, 0)
    assert found[5][1][4:] == found[3][1]  # equal frames have equal data


def test_the_first_frame_is_what_a_reader_of_stills_shows():
    assert np.array_equal(pixels(animation(np.stack([NOISE, 255 - NOISE]), 1, 80)), NOISE)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(shape):
    with pytest.raises(ValueError, match="at least one pixel"):
        still(np.zeros(shape, np.uint8))


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        animation(np.stack([NOISE, NOISE]), 0, 80)

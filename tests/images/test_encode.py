"""Pixels to PNG, animated PNG and npz files."""

import time
import zipfile
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from app.images import encode

Pixels = NDArray[np.uint8]

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, size=(5, 28, 30)).astype(np.uint8)
IMAGES[4] = 0


def read(content: bytes) -> Pixels:
    with Image.open(BytesIO(content)) as image:
        image.verify()  # compares the checksums
    with Image.open(BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def enlarged(image: Pixels, scale: int) -> Pixels:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def test_every_eight_bit_level_is_restored_from_its_fraction():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(encode.to_uint8(levels.astype(np.float32) / np.float32(255)), levels)


def test_halves_are_rounded_up_and_values_outside_are_clipped():
    values = np.array([[-np.inf, -1, 0, 0.5 / 255, 1.5 / 255, 0.5, 1, 2, np.inf]], dtype=np.float32)
    assert encode.to_uint8(values).tolist() == [[0, 0, 0, 1, 2, 128, 255, 255, 255]]


def test_pixels_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="not numbers"):
        encode.to_uint8(np.array([0, np.nan], dtype=np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (28, 28), (28, 28 * 64), (300, 301)])
@pytest.mark.parametrize("scale", [1, 2, 3, 16])
def test_a_png_of_any_size_and_scale_has_the_pixels_of_the_image(shape, scale):
    noise = RANDOM.integers(0, 256, size=shape).astype(np.uint8)
    for image in (noise, np.zeros(shape, np.uint8), np.add.outer(*map(np.arange, shape)).astype(np.uint8)):
        assert np.array_equal(read(encode.png(image, scale=scale)), enlarged(image, scale))


def test_an_image_need_not_be_contiguous_in_memory():
    image = IMAGES[0].T[::2, 3:20]
    assert np.array_equal(read(encode.png(image, scale=2)), enlarged(image, 2))


@pytest.mark.parametrize("scale", [0, -1])
def test_a_scale_below_one_is_refused(scale):
    with pytest.raises(ValueError, match="at least 1"):
        encode.png(IMAGES[0], scale=scale)
    with pytest.raises(ValueError, match="at least 1"):
        encode.apng(IMAGES, scale=scale)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(shape):
    with pytest.raises(ValueError, match="at least one pixel"):
        encode.png(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_a_grid_is_nearly_square_by_default(count, columns):
    assert encode.grid(np.zeros((count, 2, 3), dtype=np.uint8)).shape[1] == columns * 3


def test_a_grid_runs_row_by_row_and_its_empty_cells_are_black():
    rows = [np.hstack(list(IMAGES[:3])), np.hstack([IMAGES[3], IMAGES[4], np.zeros_like(IMAGES[0])])]
    assert np.array_equal(encode.grid(IMAGES, columns=3), np.vstack(rows))
    assert np.array_equal(encode.grid(IMAGES, columns=5), np.hstack(list(IMAGES)))


@pytest.mark.parametrize(("images", "columns"), [(IMAGES[:0], None), (IMAGES[:0], 3), (IMAGES, 0), (IMAGES, -2)])
def test_a_grid_without_images_or_columns_is_refused(images, columns):
    with pytest.raises(ValueError, match="at least one image and one column"):
        encode.grid(images, columns)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 0, 0], [0, 1, 1, 1, 2, 2], [4, 4, 0, 4, 4]])
def test_each_image_of_an_animation_is_a_frame_of_its_own(order, scale):
    content = encode.apng(IMAGES[order], scale=scale, frame_ms=70)
    with Image.open(BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == len(order)
        assert image.info["loop"] == 0
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            assert frame.info["duration"] == 70
            assert np.array_equal(np.asarray(frame.convert("L")), enlarged(IMAGES[order[number]], scale))


def test_an_animation_of_one_image_is_a_still_png():
    assert encode.apng(IMAGES[:1], scale=2) == encode.png(IMAGES[0], scale=2)


def test_an_animation_of_no_images_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        encode.apng(IMAGES[:0])


def test_an_archive_has_every_array():
    arrays: dict[str, NDArray[Any]] = {
        "images": IMAGES,
        "latents": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "seed": np.array(7),
        "transposed": IMAGES.T,
    }
    with np.load(BytesIO(encode.npz(**arrays)), allow_pickle=False) as loaded:
        assert set(loaded) == set(arrays)
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype
            assert np.array_equal(loaded[name], array)


def test_an_archive_has_the_same_bytes_at_any_time_and_in_any_order(monkeypatch):
    latents = np.ones((2, 3), dtype=np.float32)
    first = encode.npz(images=IMAGES, latents=latents)
    clock = time.time() + 86_400 * 400
    monkeypatch.setattr(time, "time", lambda: clock)
    assert encode.npz(latents=latents, images=IMAGES.copy(order="F")) == first
    with zipfile.ZipFile(BytesIO(first)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}

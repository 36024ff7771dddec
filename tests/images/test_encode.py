import time
import zipfile
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from app.images import encode

IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 28, 28)).astype(np.uint8)


def read(content: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.mode == "L"
        return np.asarray(image)


def frames(content: bytes) -> tuple[list[NDArray[np.uint8]], list[float]]:
    shown, durations = [], []
    with Image.open(BytesIO(content)) as image:
        for frame in ImageSequence.Iterator(image):
            shown.append(np.asarray(frame.convert("L")))
            durations.append(frame.info["duration"])
    return shown, durations


def test_every_eight_bit_level_comes_back_from_its_share_of_one():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(encode.to_uint8(levels.astype(np.float32) / np.float32(255)), levels)


def test_halves_are_rounded_up_and_what_lies_outside_is_clipped():
    values = np.array([-np.inf, -1, 0, 0.5 / 255, 1.5 / 255, 0.5, 1, 2, np.inf], dtype=np.float32)
    assert encode.to_uint8(values).tolist() == [0, 0, 0, 1, 2, 128, 255, 255, 255]


def test_the_shape_of_images_is_kept():
    assert encode.to_uint8(np.zeros((2, 1, 28, 28), dtype=np.float32)).shape == (2, 1, 28, 28)


def test_pixels_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not numbers"):
        encode.to_uint8(np.array([0, np.nan], dtype=np.float32))


def test_a_png_gives_the_pixels_back():
    assert np.array_equal(read(encode.png(IMAGES[0])), IMAGES[0])


def test_a_scaled_png_shows_every_pixel_as_a_square():
    enlarged = read(encode.png(IMAGES[0], scale=3))
    assert enlarged.shape == (84, 84)
    for row in range(3):
        for column in range(3):
            assert np.array_equal(enlarged[row::3, column::3], IMAGES[0])


@pytest.mark.parametrize("scale", [0, -1])
def test_a_scale_below_one_is_refused(scale):
    with pytest.raises(ValueError, match="at least 1"):
        encode.png(IMAGES[0], scale=scale)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_a_grid_is_as_square_as_can_be_unless_told(count, columns):
    assert encode.grid(np.zeros((count, 2, 3), dtype=np.uint8)).shape[1] == columns * 3


def test_a_grid_runs_row_by_row_and_its_empty_cells_are_black():
    table = encode.grid(IMAGES, columns=3)
    assert table.shape == (2 * 28, 3 * 28)
    for index, image in enumerate(IMAGES):
        row, column = divmod(index, 3)
        assert np.array_equal(table[row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28], image)
    assert not table[28:, 56:].any()


def test_a_grid_of_as_many_columns_as_images_is_a_strip():
    assert np.array_equal(encode.grid(IMAGES, columns=len(IMAGES)), np.hstack(list(IMAGES)))


@pytest.mark.parametrize(("images", "columns"), [(IMAGES[:0], None), (IMAGES[:0], 3), (IMAGES, 0), (IMAGES, -2)])
def test_a_grid_without_images_or_columns_is_refused(images, columns):
    with pytest.raises(ValueError, match="at least one image and one column"):
        encode.grid(images, columns)


def test_an_animation_shows_every_image_in_order_for_its_time_and_repeats_for_ever():
    content = encode.apng(IMAGES, scale=2, frame_ms=50)
    shown, durations = frames(content)
    assert durations == [50] * 5
    for frame, image in zip(shown, IMAGES, strict=True):
        assert np.array_equal(frame[::2, ::2], image)
    with Image.open(BytesIO(content)) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("order", [[0, 0, 0], [0, 1, 1, 1, 2, 2], [1, 1, 0, 0, 1, 1]])
def test_equal_images_stay_frames_of_their_own(order):
    shown, durations = frames(encode.apng(IMAGES[order], frame_ms=80))
    assert sum(durations) == 80 * len(order)
    assert np.array_equal(shown, IMAGES[order])


def test_black_images_stay_black_in_an_animation():
    images = np.stack([IMAGES[0], np.zeros_like(IMAGES[0]), np.zeros_like(IMAGES[0]), IMAGES[1]])
    assert np.array_equal(frames(encode.apng(images))[0], images)


def test_an_animation_of_one_image_is_a_still_png():
    assert np.array_equal(read(encode.apng(IMAGES[:1])), IMAGES[0])


def test_an_animation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        encode.apng(IMAGES[:0])


def test_an_archive_gives_every_array_back():
    arrays: dict[str, NDArray[Any]] = {
        "images": IMAGES,
        "latents": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "index": np.arange(4),
        "seed": np.array(7),
        "turned": IMAGES.T,
    }
    with np.load(BytesIO(encode.npz(**arrays)), allow_pickle=False) as loaded:
        assert set(loaded) == set(arrays)
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype
            assert np.array_equal(loaded[name], array)
            assert loaded[name].shape == array.shape


def test_an_archive_has_the_same_bytes_at_any_time_of_day_and_in_any_order(monkeypatch):
    latents = np.ones((2, 3), dtype=np.float32)
    first = encode.npz(images=IMAGES, latents=latents)
    clock = time.time() + 86_400 * 400
    monkeypatch.setattr(time, "time", lambda: clock)
    assert encode.npz(latents=latents, images=IMAGES.copy(order="F")) == first
    with zipfile.ZipFile(BytesIO(first)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_archive_of_python_objects_is_refused():
    with pytest.raises(ValueError, match="pickle"):
        encode.npz(objects=np.array([{}], dtype=object))


def test_the_same_images_give_the_same_bytes():
    assert encode.png(IMAGES[0], scale=4) == encode.png(IMAGES[0].copy(), scale=4)
    assert encode.apng(IMAGES) == encode.apng(IMAGES.copy())

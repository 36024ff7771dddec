"""Signs that a normalized image shows more than one digit."""

import numpy as np
import pytest
from PIL import Image

from app.images.decode import Picture
from app.images.normalization import normalize
from app.images.shapes import find_warnings
from tests.conftest import FIXTURES


def digit(name, side=100):
    """A test image, enlarged, (side, side)."""
    with Image.open(FIXTURES / "mnist" / f"{name}.png") as image:
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def warnings(pixels):
    """The warnings about a picture (H, W) once it is normalized."""
    return find_warnings(normalize(Picture(pixels, None))[0])


@pytest.mark.parametrize("name", range(10))
def test_one_digit_has_no_signs(name):
    assert warnings(np.pad(digit(name), 20)) == []


def test_strokes_of_one_digit_that_do_not_touch_have_no_signs():
    pixels = np.zeros((140, 140), dtype=np.float32)
    pixels[30:36, 50:110] = 1  # the bar of a five, above the rest
    pixels[48:110, 50:56] = 1
    pixels[104:110, 50:100] = 1
    assert warnings(pixels) == []


@pytest.mark.parametrize("names", [(1, 7), (3, 8), (0, 0), (1, 2, 3)])
def test_digits_side_by_side_are_seen(names):
    assert warnings(np.pad(np.hstack([digit(name) for name in names]), 20)) == ["several_shapes"]


@pytest.mark.parametrize("name", [0, 5, 8])
def test_a_frame_is_seen(name):
    framed = np.pad(np.pad(digit(name), 15), 6, constant_values=1)
    assert warnings(np.pad(framed, 20)) == ["frame"]


def test_a_box_with_nothing_inside_is_no_frame():
    pixels = np.pad(np.pad(np.zeros((80, 60), dtype=np.float32), 8, constant_values=1), 30)
    assert warnings(pixels) == []


def test_a_blank_image_has_no_signs():
    assert find_warnings(np.zeros((28, 28), dtype=np.float32)) == []

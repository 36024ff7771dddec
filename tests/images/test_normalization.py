"""Pictures to images as MNIST has them: ink found, scaled and centred."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.errors import InvalidImage
from app.images.decode import Picture, decode_image
from app.images.normalization import fit, normalize
from tests.conftest import FIXTURES

DRAWINGS = sorted((FIXTURES / "drawings").iterdir())
DIGITS = range(10)
PAPER, PEN = 0.85, 0.15

Pixels = NDArray[np.float32]


def read(path: Path) -> Picture:
    return decode_image(path.read_bytes())


def row(digit: int) -> Pixels:
    return read(FIXTURES / "mnist" / f"{digit}.png").luminance


def enlarged(image: Pixels, times: int) -> Pixels:
    height, width = image.shape
    smooth = Image.fromarray(image).resize((width * times, height * times), Image.Resampling.BICUBIC)
    clipped: Pixels = np.clip(np.asarray(smooth), 0, 1)
    return clipped


def on_canvas(ink: Pixels, height: int, width: int, top: int, left: int) -> Pixels:
    canvas = np.zeros((height, width), dtype=np.float32)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas


def drawn(ink: Pixels, paper: float = 1, pen: float = 0) -> Picture:
    return Picture((paper + (pen - paper) * ink).astype(np.float32), None)


def photographed(ink: Pixels, paper: float = PAPER, pen: float = PEN, noise: float = 0.03) -> Picture:
    """Ink on paper that is lit from one side, with sensor noise."""
    height, width = ink.shape
    light = np.linspace(1, 0.5, width)[None] * np.linspace(1, 0.8, height)[:, None]
    grain = np.random.default_rng(3).normal(0, noise, ink.shape)
    return Picture(np.clip((paper + (pen - paper) * ink) * light + grain, 0, 1).astype(np.float32), None)


def agreement(made: Pixels, expected: Pixels) -> float:
    """The highest correlation of two images over shifts by one pixel, as the centre of mass is rounded to pixels."""
    shifts = [np.roll(made, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return float(max(np.corrcoef(shifted.ravel(), expected.ravel())[0, 1] for shifted in shifts))


def assert_shows(made: Pixels, digit: int) -> None:
    """Check that an image is most like MNIST's image of a digit, and close to it."""
    agreements = [agreement(made[0], row(other)) for other in DIGITS]
    assert max(agreements) == agreements[digit] > 0.94


def ink_box(made: Pixels) -> tuple[int, int]:
    rows, columns = np.flatnonzero(made[0].any(axis=1)), np.flatnonzero(made[0].any(axis=0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def centre_of_mass(made: Pixels) -> tuple[float, float]:
    mass, places = made[0].astype(np.float64), np.arange(made.shape[1])
    return float(mass.sum(axis=1) @ places / mass.sum()), float(mass.sum(axis=0) @ places / mass.sum())


@pytest.mark.parametrize("digit", DIGITS)
def test_mnist_images_are_returned_unchanged(digit):
    assert np.array_equal(normalize(read(FIXTURES / "mnist" / f"{digit}.png"))[0], row(digit))


def test_a_digit_that_touches_the_dark_border_is_returned_unchanged():
    ink = row(2)
    shifted = np.roll(ink, 27 - np.flatnonzero(ink.any(axis=0))[-1], axis=1)
    assert shifted[:, -1].any()
    assert np.array_equal(normalize(Picture(shifted, None))[0], shifted)


@pytest.mark.parametrize("path", DRAWINGS, ids=[path.stem for path in DRAWINGS])
def test_photos_and_drawings_become_the_digit_they_show(path):
    digit = int(path.stem[0])
    assert_shows(normalize(read(path)), digit)


def test_a_photo_of_a_camera_becomes_the_digit_it_shows():
    picture = photographed(on_canvas(enlarged(row(4), 40), 1500, 2000, 250, 700))
    file = BytesIO()
    Image.fromarray((255 * picture.luminance).astype(np.uint8)).save(file, "JPEG", quality=85)
    assert_shows(normalize(decode_image(file.getvalue())), 4)


VIEWS: dict[str, Callable[[Pixels], Picture]] = {
    "dark on light": lambda ink: drawn(enlarged(ink, 10)),
    "light on dark": lambda ink: drawn(enlarged(ink, 10), paper=0, pen=1),
    "dark on dark": lambda ink: drawn(enlarged(ink, 10), paper=0.3, pen=0.2),
    "light on grey": lambda ink: drawn(enlarged(ink, 2), paper=0.5, pen=0.9),
    "28 x 28, dark on light": drawn,
    "photo": lambda ink: photographed(enlarged(ink, 10)),
    "photo of a blackboard": lambda ink: photographed(enlarged(ink, 10), paper=0.2, pen=0.85),
    "photo of a pencil drawing": lambda ink: photographed(enlarged(ink, 10), pen=0.55, noise=0.02),
    "small photo": lambda ink: photographed(enlarged(ink, 2)),
    "small in a large photo": lambda ink: photographed(on_canvas(enlarged(ink, 4), 480, 640, 330, 30)),
    "small in a corner": lambda ink: drawn(on_canvas(ink, 300, 200, 5, 160)),
    "in a wide strip": lambda ink: drawn(on_canvas(enlarged(ink, 6), 180, 1000, 5, 600)),
}


@pytest.mark.parametrize("digit", [1, 4, 5])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_digit_is_found_in_any_kind_of_picture(view, digit):
    assert_shows(normalize(view(row(digit))), digit)


@pytest.mark.parametrize("digit", [0, 2, 4, 8])
@pytest.mark.parametrize(("paper", "pen"), [(1, 0), (0, 1)], ids=["dark on light", "light on dark"])
def test_a_digit_cut_out_without_a_margin_keeps_its_polarity(digit, paper, pen):
    ink = row(digit)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert_shows(normalize(drawn(enlarged(cut, 10), paper, pen)), digit)


@pytest.mark.parametrize("tone", [0.0, 0.3, 0.7, 1.0])
def test_a_transparent_drawing_of_any_tone_is_found(tone):
    ink = enlarged(row(5), 8)
    assert_shows(normalize(Picture(np.full_like(ink, tone), ink)), 5)


def test_a_cut_out_sheet_of_paper_is_not_taken_for_ink():
    ink = enlarged(row(5), 8)
    sheet = Picture(np.pad(0.9 - 0.9 * ink, 30), np.pad(np.ones_like(ink), 30))
    assert_shows(normalize(sheet), 5)


def test_the_colour_of_transparent_pixels_is_ignored():
    ink = enlarged(row(5), 8)
    noise = np.random.default_rng(0).random(ink.shape, dtype=np.float32)
    opaque = (ink > 0.5).astype(np.float32)
    assert np.array_equal(
        normalize(Picture(np.where(opaque > 0, 0, noise).astype(np.float32), opaque)),
        normalize(Picture(np.zeros_like(opaque), opaque)),
    )


@pytest.mark.parametrize("digit", DIGITS)
def test_the_ink_fills_the_box_and_its_centre_of_mass_is_in_the_middle(digit):
    made = normalize(drawn(on_canvas(enlarged(row(digit), 7), 400, 500, 150, 20)))
    assert max(ink_box(made)) == 20
    assert all(13.5 <= middle < 14.5 for middle in centre_of_mass(made))
    assert made.max() == 1
    assert made.dtype == np.float32


def test_the_size_and_the_box_are_configurable():
    made = normalize(drawn(enlarged(row(2), 10)), size=40, box=32)
    assert made.shape == (1, 40, 40)
    assert max(ink_box(made)) == 32
    assert all(19.5 <= middle < 20.5 for middle in centre_of_mass(made))


def test_a_box_that_is_larger_than_the_image_fills_it():
    made = normalize(drawn(enlarged(row(2), 10)), size=7, box=20)
    assert made.shape == (1, 7, 7)
    assert max(ink_box(made)) == 7


def test_ink_whose_centre_of_mass_is_far_from_its_middle_stays_inside_the_image():
    ink = np.zeros((300, 300), dtype=np.float32)
    ink[40:240, 40:70] = 1
    ink[40:44, 40:240] = 1
    made = normalize(drawn(ink), box=28)
    assert max(ink_box(made)) == 28


def test_the_aspect_ratio_is_kept():
    ink = np.zeros((400, 400), dtype=np.float32)
    ink[50:350, 180:240] = 1
    assert ink_box(normalize(drawn(ink))) == (20, 4)


@pytest.mark.parametrize("width", [1, 2, 4, 10])
def test_thin_lines_on_a_large_canvas_become_as_wide_as_strokes_of_mnist(width):
    def line(pen: int) -> Pixels:
        canvas = Image.new("L", (1000, 1000), 255)
        ImageDraw.Draw(canvas).line([(300, 100), (700, 120), (420, 900)], fill=0, width=pen)
        made: Pixels = normalize(drawn(1 - np.asarray(canvas, dtype=np.float32) / np.float32(255)))[0]
        return made

    thin, usual = line(width), line(100)
    assert agreement(thin, usual) > 0.9
    assert 0.8 < thin.sum() / usual.sum() < 1.2


def test_specks_of_dirt_are_not_ink():
    clean = on_canvas(enlarged(row(9), 10), 480, 480, 100, 100)
    dirty = clean.copy()
    for top, left in np.random.default_rng(2).integers(0, 470, size=(30, 2)):
        dirty[top : top + 4, left : left + 4] = 1
    assert_shows(normalize(drawn(dirty)), 9)


BLANK = {
    "black": Picture(np.zeros((28, 28), np.float32), None),
    "white": Picture(np.ones((28, 28), np.float32), None),
    "nearly black": Picture(np.full((28, 28), 0.05, np.float32), None),
    "grey": Picture(np.full((500, 300), 0.8, np.float32), None),
    "one pixel": Picture(np.full((1, 1), 0.4, np.float32), None),
    "one row": Picture(np.full((1, 300), 0.4, np.float32), None),
    "fully transparent": Picture(np.full((50, 50), 0.4, np.float32), np.zeros((50, 50), np.float32)),
    "evenly transparent": Picture(np.full((50, 50), 0.4, np.float32), np.full((50, 50), 0.5, np.float32)),
    "photo of paper": photographed(np.zeros((480, 640), np.float32)),
    "small photo of paper": photographed(np.zeros((60, 60), np.float32)),
    "photo of a blackboard": photographed(np.zeros((480, 640), np.float32), paper=0.2),
    "gradient": photographed(np.zeros((480, 640), np.float32), noise=0),
    "noise": Picture(np.random.default_rng(1).random((100, 100), np.float32), None),
}


@pytest.mark.parametrize("picture", BLANK.values(), ids=BLANK.keys())
def test_pictures_without_ink_are_refused(picture):
    with pytest.raises(InvalidImage):
        normalize(picture)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    arrays(
        np.float32, st.tuples(st.just(2), st.integers(1, 40), st.integers(1, 40)), elements=st.floats(0, 1, width=32)
    ),
    st.booleans(),
)
def test_any_picture_gives_an_image_or_a_refusal(planes, opaque):
    try:
        made = normalize(Picture(planes[0], None if opaque else planes[1]))
    except InvalidImage:
        return
    assert made.shape == (1, 28, 28)
    assert made.dtype == np.float32
    assert 0 <= made.min() <= made.max() <= 1


def test_fit_returns_a_picture_of_the_right_size_unchanged():
    inverted = 1 - row(4)
    assert np.array_equal(fit(Picture(inverted, None))[0], inverted)


def test_fit_resizes_without_centring_or_inverting():
    half = np.zeros((100, 200), dtype=np.float32)
    half[:, :100] = 1
    made = fit(Picture(half, None))
    assert made.shape == (1, 28, 28)
    assert made.dtype == np.float32
    assert made[0, :, :12].min() > 0.99
    assert made[0, :, 16:].max() < 0.01


def test_fit_shows_transparent_pixels_as_black():
    made = fit(Picture(np.ones((28, 28), dtype=np.float32), row(4)))
    assert np.array_equal(made[0], row(4))


def test_fit_stays_in_the_range_of_pixels():
    sharp = (np.indices((300, 300)).sum(axis=0) // 30 % 2).astype(np.float32)
    made = fit(Picture(sharp, None), size=64)
    assert made.shape == (1, 64, 64)
    assert 0 <= made.min() <= made.max() <= 1

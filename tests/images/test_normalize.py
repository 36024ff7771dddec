from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.errors import InvalidImage
from app.images.decode import Picture, decode_image
from app.images.normalize import fit, normalize

FIXTURES = Path(__file__).parents[1] / "fixtures"
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
    """Ink on paper that is lit from one side, with a sensor's noise."""
    height, width = ink.shape
    light = np.linspace(1, 0.5, width)[None] * np.linspace(1, 0.8, height)[:, None]
    grain = np.random.default_rng(3).normal(0, noise, ink.shape)
    return Picture(np.clip((paper + (pen - paper) * ink) * light + grain, 0, 1).astype(np.float32), None)


def agreement(made: Pixels, expected: Pixels) -> float:
    """The correlation of two images at the best of shifts by up to one pixel.

    The centre of mass decides on the whole pixel to place a digit at, and may be just between two.
    """
    shifts = [np.roll(made, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return float(max(np.corrcoef(shifted.ravel(), expected.ravel())[0, 1] for shifted in shifts))


def likeness(made: Pixels, digit: int) -> float:
    """The agreement of a row with MNIST's image of a digit."""
    return agreement(made[0], row(digit))


def looks_most_like(made: Pixels) -> int:
    return max(DIGITS, key=lambda digit: likeness(made, digit))


def ink_box(made: Pixels) -> tuple[int, int]:
    rows, columns = np.flatnonzero(made[0].any(axis=1)), np.flatnonzero(made[0].any(axis=0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def centre_of_mass(made: Pixels) -> tuple[float, float]:
    mass, places = made[0].astype(np.float64), np.arange(made.shape[1])
    return float(mass.sum(axis=1) @ places / mass.sum()), float(mass.sum(axis=0) @ places / mass.sum())


@pytest.mark.parametrize("digit", DIGITS)
def test_mnist_images_pass_unchanged(digit):
    assert np.array_equal(normalize(read(FIXTURES / "mnist" / f"{digit}.png"))[0], row(digit))


def test_a_digit_that_touches_the_dark_border_passes_unchanged():
    ink = row(2)
    shifted = np.roll(ink, 27 - np.flatnonzero(ink.any(axis=0))[-1], axis=1)
    assert shifted[:, -1].any()
    assert np.array_equal(normalize(Picture(shifted, None))[0], shifted)


def test_what_is_returned_is_no_view_of_the_picture():
    picture = Picture(row(3).copy(), None)
    normalize(picture)[:] = 0
    fit(picture)[:] = 0
    assert np.array_equal(picture.luminance, row(3))


@pytest.mark.parametrize("path", DRAWINGS, ids=[path.stem for path in DRAWINGS])
def test_photos_and_drawings_become_the_digit_they_show(path):
    digit = int(path.stem[0])
    made = normalize(read(path))
    assert looks_most_like(made) == digit
    assert likeness(made, digit) > 0.94


@pytest.mark.parametrize("digit", [0, 1, 4, 5, 7])
@pytest.mark.parametrize(
    "take",
    [
        lambda ink: drawn(enlarged(ink, 10)),
        lambda ink: drawn(enlarged(ink, 10), paper=0, pen=1),
        lambda ink: drawn(enlarged(ink, 10), paper=0.3, pen=0.2),
        lambda ink: drawn(enlarged(ink, 2), paper=0.5, pen=0.9),
        drawn,
        lambda ink: photographed(enlarged(ink, 10)),
        lambda ink: photographed(enlarged(ink, 10), paper=0.2, pen=0.85),
        lambda ink: photographed(enlarged(ink, 10), pen=0.55, noise=0.02),
        lambda ink: photographed(enlarged(ink, 2)),
        lambda ink: photographed(on_canvas(enlarged(ink, 4), 480, 640, 330, 30)),
        lambda ink: drawn(on_canvas(ink, 300, 200, 5, 160)),
        lambda ink: drawn(on_canvas(enlarged(ink, 6), 180, 1000, 5, 600)),
    ],
    ids=[
        "dark on light",
        "light on dark",
        "dark on dark",
        "light on grey",
        "28 x 28, dark on light",
        "photo",
        "photo of a blackboard",
        "photo of a pencil drawing",
        "small photo",
        "small in a large photo",
        "small in a corner",
        "in a wide strip",
    ],
)
def test_a_digit_is_found_however_it_is_shown(take, digit):
    made = normalize(take(row(digit)))
    assert looks_most_like(made) == digit
    assert likeness(made, digit) > 0.94


@pytest.mark.parametrize("digit", [0, 2, 3, 4, 5, 6, 8, 9])
@pytest.mark.parametrize(("paper", "pen"), [(1, 0), (0, 1)], ids=["dark on light", "light on dark"])
def test_a_digit_cut_out_without_a_margin_keeps_its_polarity(digit, paper, pen):
    ink = row(digit)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    made = normalize(drawn(enlarged(cut, 10), paper, pen))
    assert looks_most_like(made) == digit
    assert likeness(made, digit) > 0.94


@pytest.mark.parametrize("tone", [0.0, 0.3, 0.7, 1.0])
def test_transparent_drawings_stand_out_from_their_ground_in_any_tone(tone):
    ink = enlarged(row(5), 8)
    made = normalize(Picture(np.full_like(ink, tone), ink))
    assert likeness(made, 5) > 0.94


def test_a_sheet_cut_out_on_transparency_is_paper_and_not_ink():
    ink = enlarged(row(5), 8)
    sheet = Picture(np.pad(0.9 - 0.9 * ink, 30), np.pad(np.ones_like(ink), 30))
    assert likeness(normalize(sheet), 5) > 0.94


def test_the_colour_of_transparent_pixels_is_of_no_account():
    ink = enlarged(row(5), 8)
    noise = np.random.default_rng(0).random(ink.shape, dtype=np.float32)
    opaque = (ink > 0.5).astype(np.float32)
    assert np.array_equal(
        normalize(Picture(np.where(opaque > 0, 0, noise).astype(np.float32), opaque)),
        normalize(Picture(np.zeros_like(opaque), opaque)),
    )


@pytest.mark.parametrize("digit", DIGITS)
def test_the_longer_side_fills_the_box_and_the_centre_of_mass_is_in_the_middle(digit):
    made = normalize(drawn(on_canvas(enlarged(row(digit), 7), 400, 500, 150, 20)))
    assert max(ink_box(made)) == 20
    assert all(13.5 <= middle < 14.5 for middle in centre_of_mass(made))
    assert made.max() == 1
    assert made.dtype == np.float32


def test_other_sizes_and_boxes_are_kept_to():
    made = normalize(drawn(enlarged(row(2), 10)), size=40, box=32)
    assert made.shape == (1, 40, 40)
    assert max(ink_box(made)) == 32
    assert all(19.5 <= middle < 20.5 for middle in centre_of_mass(made))


def test_ink_stays_inside_when_its_centre_of_mass_is_far_from_its_middle():
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
def test_thin_lines_on_a_large_canvas_are_drawn_as_wide_as_mnist_strokes(width):
    def line(pen: int) -> Pixels:
        canvas = Image.new("L", (1000, 1000), 255)
        ImageDraw.Draw(canvas).line([(300, 100), (700, 120), (420, 900)], fill=0, width=pen)
        made: Pixels = normalize(drawn(1 - np.asarray(canvas, dtype=np.float32) / np.float32(255)))[0]
        return made

    thin, usual = line(width), line(100)
    assert agreement(thin, usual) > 0.9
    assert 0.8 < thin.sum() / usual.sum() < 1.2


def test_specks_of_dirt_do_not_widen_the_box():
    clean = on_canvas(enlarged(row(9), 10), 480, 480, 100, 100)
    dirty = clean.copy()
    for top, left in np.random.default_rng(2).integers(0, 470, size=(30, 2)):
        dirty[top : top + 4, left : left + 4] = 1
    assert likeness(normalize(drawn(dirty)), 9) > 0.94


@pytest.mark.parametrize(
    "picture",
    [
        Picture(np.zeros((28, 28), dtype=np.float32), None),
        Picture(np.ones((28, 28), dtype=np.float32), None),
        Picture(np.full((28, 28), 0.05, dtype=np.float32), None),
        Picture(np.full((500, 300), 0.8, dtype=np.float32), None),
        Picture(np.full((1, 1), 0.4, dtype=np.float32), None),
        Picture(np.full((1, 300), 0.4, dtype=np.float32), None),
        Picture(np.full((50, 50), 0.4, dtype=np.float32), np.zeros((50, 50), dtype=np.float32)),
        Picture(np.full((50, 50), 0.4, dtype=np.float32), np.full((50, 50), 0.5, dtype=np.float32)),
        photographed(np.zeros((480, 640), dtype=np.float32)),
        photographed(np.zeros((60, 60), dtype=np.float32)),
        photographed(np.zeros((480, 640), dtype=np.float32), paper=0.2),
        photographed(np.zeros((480, 640), dtype=np.float32), noise=0),
        Picture(np.random.default_rng(1).random((100, 100), dtype=np.float32), None),
    ],
    ids=[
        "black",
        "white",
        "nearly black",
        "grey",
        "one pixel",
        "one row",
        "fully transparent",
        "evenly transparent",
        "photo of blank paper",
        "small photo of blank paper",
        "photo of a blank blackboard",
        "gradient",
        "noise",
    ],
)
def test_pictures_without_ink_are_refused(picture):
    with pytest.raises(InvalidImage, match="no ink"):
        normalize(picture)


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "with alpha"])
def test_any_picture_gives_a_row_or_a_refusal(alpha):
    random = np.random.default_rng(11)
    for _ in range(60):
        height, width = random.integers(1, 40, size=2)
        values = random.random((2, height, width), dtype=np.float32)
        values = np.where(random.random((2, height, width)) < random.random(), np.round(values), values * 0.1)
        picture = Picture(values[0].astype(np.float32), values[1].astype(np.float32) if alpha else None)
        try:
            made = normalize(picture)
        except InvalidImage:
            continue
        assert made.shape == (1, 28, 28)
        assert made.dtype == np.float32
        assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("path", DRAWINGS, ids=[path.stem for path in DRAWINGS])
def test_the_same_picture_gives_the_same_row(path):
    assert np.array_equal(normalize(read(path)), normalize(read(path)))


def test_fitting_keeps_a_picture_of_the_right_size_as_it_is():
    inverted = 1 - row(4)
    assert np.array_equal(fit(Picture(inverted, None))[0], inverted)


def test_fitting_resizes_without_centring_or_inverting():
    half = np.zeros((100, 200), dtype=np.float32)
    half[:, :100] = 1
    made = fit(Picture(half, None))
    assert made.shape == (1, 28, 28)
    assert made.dtype == np.float32
    assert made[0, :, :12].min() > 0.99
    assert made[0, :, 16:].max() < 0.01


def test_fitting_shows_what_is_transparent_as_black():
    made = fit(Picture(np.ones((28, 28), dtype=np.float32), row(4)))
    assert np.array_equal(made[0], row(4))


def test_fitting_stays_between_black_and_white():
    sharp = (np.indices((300, 300)).sum(axis=0) // 30 % 2).astype(np.float32)
    made = fit(Picture(sharp, None), size=64)
    assert made.shape == (1, 64, 64)
    assert 0 <= made.min() <= made.max() <= 1

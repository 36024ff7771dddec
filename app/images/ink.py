"""Ink on paper: which pixels of a picture are strokes, and how dark. Knows nothing of files, sizes or digits' form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidImage
from app.images.planes import Mask, Pixels, bounds, dilate, largest, resize, smoothed

MAX_LOOKS = 5
# Paper to show around the ink, on each side, as a share of its longer side.
MARGIN = 0.3
# In a picture of fewer pixels on its shorter side, strokes are so few pixels wide that smoothing dissolves
# them.
SMOOTH_FROM = 48
# Strokes are narrower than twice this share of the picture's longer side.
REACH = 0.2
# The least contrast of ink, as a share of the paper's light and in standard deviations of its grain.
LEAST_CONTRAST = 0.03
LEAST_CONTRAST_TO_GRAIN = 6.0
# Shares of the strongest ink: ink starts at the first, and every stroke reaches the second somewhere.
FAINT, STRONG = 0.35, 0.6
# Spots with less than this share of the largest stroke's area are dirt.
DIRT = 0.03
# Ink that fills this share of a whole edge of the picture is what the paper lies on.
FULL_EDGE = 0.9
# Paper is never taken for darker than this, so that its grain is not divided by next to nothing.
LEAST_PAPER = 0.02
# The grey of the paper ends at this share of the ink's contrast, or above its grain.
PAPER_GREY = 0.06


@dataclass(frozen=True)
class _Look:
    """A part of the picture, seen small, with the ink found in it.

    density: (h, w) in [0, 1], the share of the paper's light that is missing; 0 away from the strokes.
    strokes: (h, w), the pixels that belong to the digit.
    grain: the density that the grain of the paper reaches.
    """

    density: Pixels
    strokes: Mask
    grain: float


def no_ink() -> InvalidImage:
    """The error of a picture that shows nothing."""
    return InvalidImage("There is no ink in the image: nothing stands out from its background.")


def find_ink(luminance: Pixels, side: int) -> Pixels:
    """Ink (h, w) in [0, 1], 1 where a stroke is solid, cut out of a picture (H, W); h, w at most `side`."""
    ground = luminance
    for number in range(MAX_LOOKS):
        seen = _shrink(ground, side)
        if number == 0 and _is_light_on_dark(seen):
            ground, seen = 1 - ground, 1 - seen
        look = _look(seen)
        closer = _around(look.strokes, ground)
        if closer.size > 0.6 * ground.size or max(ground.shape) <= side // 2:
            break
        ground = closer
    # A stroke without its edges is solid; below the paper's grey the rest is grain.
    inked = look.density[look.strokes]
    if not inked.any():
        raise no_ink()
    solid = float(np.median(inked[inked >= inked.max() / 2]))
    paper = min(max(PAPER_GREY * solid, look.grain), solid / 2)
    ink: Pixels = np.clip((look.density - paper) / (solid - paper), 0, 1)
    return ink


def stroke_width(strokes: Mask) -> float:
    """The mean width in pixels: an outline is twice a stroke's length, and 5/4 as long again along pixels."""
    padded = np.pad(strokes, 1)
    outline = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    return float(2 * strokes.sum() / (0.8 * outline))


def _shrink(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    return resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))


def _around(strokes: Mask, ground: Pixels) -> Pixels:
    """The part of the ground that shows the strokes, seen smaller, with some paper on all sides."""
    factor = max(ground.shape) / max(strokes.shape)
    box = [(edge.start * factor, edge.stop * factor) for edge in bounds(strokes)]
    reach = (0.5 + MARGIN) * max(stop - start for start, stop in box)
    rows, columns = (((start + stop) / 2 - reach, (start + stop) / 2 + reach) for start, stop in box)
    return ground[max(0, int(rows[0])) : int(rows[1]) + 1, max(0, int(columns[0])) : int(columns[1]) + 1]


def _is_light_on_dark(pixels: Pixels) -> bool:
    """Whether ink, which differs most from the ground, is lighter than it."""
    departure = smoothed(pixels) - _ground(pixels, _shows_table(pixels))
    return bool(departure.max() > -departure.min())


def _lighting(pixels: Pixels) -> Pixels:
    """The ground of a picture (h, w) of dark ink. Light multiplies, so its logarithm is what is fitted."""
    logarithm = _ground(np.log(np.maximum(pixels, LEAST_PAPER)), _shows_table(pixels))
    return np.exp(np.clip(logarithm, np.log(LEAST_PAPER), 0))


def _ground(values: Pixels, shows_table: bool) -> Pixels:
    """The values (h, w) without the ink: a cubic surface, fitted to the border, where there is little of it.

    Where the border shows a table, the surface is fitted to all values. The fit is iteratively reweighted
    least squares with Cauchy weights, so that what departs from most is outvoted.
    """
    height, width = values.shape
    coarse = resize(values, min(height, 32), min(width, 32))
    sample = np.ones(coarse.shape, dtype=bool)
    if not shows_table:
        sample[2:-2, 2:-2] = False
    terms, samples = _cubic(*coarse.shape)[sample], coarse[sample].astype(np.float64)
    coefficients = np.zeros(terms.shape[1])
    coefficients[0] = np.median(samples)
    for _ in range(20):
        residual = np.abs(samples - terms @ coefficients)
        weights = 1 / (1 + (residual / (1.5 * np.median(residual) + 1e-3)) ** 2)
        coefficients = np.linalg.lstsq(terms * weights[:, None], samples * weights, rcond=None)[0]
    ground: Pixels = (_cubic(height, width) @ coefficients).astype(np.float32)
    return ground


def _cubic(height: int, width: int) -> NDArray[np.float64]:
    """(height, width, 10): 1, y, y^2, ... x^3 of each pixel, x and y in [-1, 1]."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=-1)


def _shows_table(pixels: Pixels) -> bool:
    """Whether a whole edge of the picture differs from most of it, as where a photo goes beyond the paper."""
    dark = pixels < np.percentile(pixels, [2, 98]).mean()
    edges = [edge.mean() for edge in (dark[0], dark[-1], dark[:, 0], dark[:, -1])]
    return bool((dark.mean() < 0.4 and max(edges) > 0.98) or (dark.mean() > 0.6 and min(edges) < 0.02))


def _look(pixels: Pixels) -> _Look:
    """Find dark strokes on light paper (h, w). Raises InvalidImage when there are none."""
    even = pixels / _lighting(pixels)
    is_small = min(pixels.shape) < SMOOTH_FROM
    smooth = even if is_small else smoothed(even)
    # First with a wide reach, to learn how wide the strokes are ...
    strokes = _strokes(_density(smooth, smooth, int(REACH * max(pixels.shape))))
    # ... then with a reach just beyond them, which leaves shadows and all slow changes of light to the paper.
    reach = int(np.ceil(stroke_width(strokes)))
    density = _density(smooth, smooth, reach)
    strokes = _strokes(density)
    paper = density[density <= FAINT * density.max()]
    contrast = np.median(density[strokes])
    if contrast < max(LEAST_CONTRAST, paper.mean() + LEAST_CONTRAST_TO_GRAIN * paper.std()):
        raise no_ink()
    edges = dilate(strokes, 1 if is_small else 2)
    density = _density(even, smooth, reach)
    grain = np.percentile(density[~edges], 95) if not edges.all() else 0
    return _Look(np.where(edges, density, 0), strokes, float(grain))


def _density(pixels: Pixels, smooth: Pixels, reach: int) -> Pixels:
    """The share (h, w) in [0, 1] of the paper's light that is missing from each pixel.

    The paper is the morphological closing of the smoothed pixels: the lightest that any square of 2 reach + 1
    around a pixel has to show. Squares stay inside the picture, so that strokes at its edge count as strokes.
    """
    reach = max(2, min(reach, (min(pixels.shape) - 1) // 2))
    side = min(2 * reach + 1, *pixels.shape)
    lightest = np.pad(largest(smooth, side), side - 1, constant_values=np.inf)
    paper = -largest(-lightest, side)
    density: Pixels = np.clip((paper - pixels) / np.maximum(paper, LEAST_PAPER), 0, 1)
    return density


def _strokes(density: Pixels) -> Mask:
    """The areas of ink that are strokes of a digit: not faint, not dirt, not the table below the paper."""
    strongest = density.max()
    if strongest == 0:
        raise no_ink()
    areas = _areas(density > FAINT * strongest)
    count = int(areas.max()) + 1
    pixels = np.bincount(areas.ravel(), minlength=count)
    is_stroke = np.zeros(count, dtype=bool)
    is_stroke[areas[density >= STRONG * strongest]] = True
    is_stroke &= pixels >= DIRT * pixels[is_stroke].max()
    is_table = np.zeros(count, dtype=bool)
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        is_table |= np.bincount(edge, minlength=count) >= FULL_EDGE * edge.size
    if (is_stroke & ~is_table).any():
        is_stroke &= ~is_table
        is_stroke &= pixels >= DIRT * pixels[is_stroke].max()
    is_stroke[0] = False
    strokes: Mask = is_stroke[areas]
    return strokes


def _areas(mask: Mask) -> NDArray[np.intp]:
    """Number the connected areas (8 neighbours) of a mask 1, 2, ...; 0 is what is not in it.

    Areas that touch become that of the smallest number among them, in rounds of whole areas: there are O(log^2) of
    them, also for mazes (S. C. Liu, R. E. Tarjan, "Simple Concurrent Labeling Algorithms for Connected Components").
    """
    places = np.arange(mask.size).reshape(mask.shape)
    neighbours = [
        (places[:, 1:], places[:, :-1]),
        (places[1:], places[:-1]),
        (places[1:, 1:], places[:-1, :-1]),
        (places[1:, :-1], places[:-1, 1:]),
    ]
    flat = mask.ravel()
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()]) for one, other in neighbours], axis=1)
    pairs = pairs[:, flat[pairs].all(axis=0)]
    area = np.arange(mask.size)
    while pairs.size:
        np.minimum.at(area, pairs.max(axis=0), pairs.min(axis=0))
        while (area[area] != area).any():
            area = area[area]
        pairs = area[pairs]
        pairs = pairs[:, pairs[0] != pairs[1]]
    numbered: NDArray[np.intp] = np.unique(np.append(-1, np.where(flat, area, -1)), return_inverse=True)[1][1:]
    return numbered.reshape(mask.shape)

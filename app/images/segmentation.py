"""Segmentation of a picture into ink and background, with the density of the ink."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.errors import InvalidImage
from app.images.resize import FloatPixels, reduce, resize

Mask = NDArray[np.bool_]

MAX_PASSES = 5
# Background to keep on each side of the ink, as a share of the ink's longer side.
MARGIN = 0.3
# Below this shorter side, strokes are so few pixels wide that smoothing would erase them.
MIN_SMOOTHED_SIDE = 48
# Upper bound of half a stroke's width, as a share of the picture's longer side.
MAX_HALF_STROKE = 0.2
# The lowest contrast of ink, as a share of the background's brightness and in standard deviations of its noise.
MIN_CONTRAST = 0.03
MIN_CONTRAST_TO_NOISE = 6.0
# Thresholds relative to the densest ink: pixels above the first are ink, and a stroke has pixels above the second.
FAINT, STRONG = 0.35, 0.6
# A component smaller than this share of the largest stroke is dirt.
MIN_AREA = 0.03
# A component that covers this share of an edge of the picture is the surface below the paper.
EDGE_COVERAGE = 0.9
# Lower bound of the background, which brightness is divided by.
MIN_BACKGROUND = 0.02
# Density below this share of the ink's density is background.
BACKGROUND_DENSITY = 0.06
# The background is fitted to a copy of the picture of at most this side, in this many rounds.
FIT_SIDE, FIT_ROUNDS = 32, 8
RIDGE = 1e-9 * np.eye(10)
# The powers of x and of y in the ten terms of a cubic surface.
POWERS_X, POWERS_Y = np.array([(i, j) for i in range(4) for j in range(4 - i)]).T


@dataclass(frozen=True)
class _Segments:
    """Ink and background of a picture (h, w) on even light.

    pixels: (h, w), the brightness relative to that of the background.
    background: (h, w), the same with the strokes closed.
    strokes: (h, w), the pixels of the digit.
    """

    pixels: FloatPixels
    background: FloatPixels
    strokes: Mask


def no_ink() -> InvalidImage:
    """The error for a blank picture."""
    return InvalidImage("There is no ink in the image: nothing stands out from its background")


def find_ink(luminance: FloatPixels, side: int) -> FloatPixels:
    """Segment the ink of a picture (H, W), light or dark, and crop the picture to it.

    The picture is reduced to a longer side of `side`, which averages noise away, and segmented repeatedly,
    each time cropped to the ink of the previous pass, so that small digits are resolved as well as large ones.

    Returns float32 (h, w) in [0, 1], 1 where a stroke is solid; h and w are at most `side`. Raises InvalidImage
    where nothing stands out.
    """
    region = luminance
    for number in range(MAX_PASSES):
        reduced = reduce(region, side)
        if number == 0 and _is_light_on_dark(reduced):
            region, reduced = 1 - region, 1 - reduced
        segments = _segment(reduced)
        cropped = _crop(region, segments.strokes)
        if cropped.size > 0.6 * region.size or max(region.shape) <= side // 2:
            break
        region = cropped
    density = _density(segments.pixels, segments.background)
    near = ndimage.maximum_filter(segments.strokes, 3 if _is_small(density) else 5)
    noise = 0 if near.all() else float(np.percentile(density[~near], 95))
    densities = density[segments.strokes]
    if not densities.any():
        raise no_ink()
    # The inner part of the strokes is solid; their edges are not.
    solid = float(np.median(densities[densities >= densities.max() / 2]))
    floor = min(max(BACKGROUND_DENSITY * solid, noise), solid / 2)
    scaled: FloatPixels = np.clip((np.where(near, density, 0) - floor) / (solid - floor), 0, 1)
    return scaled


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns of the smallest box around a mask (H, W) that is not empty."""
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    return rows, columns


def stroke_width(strokes: Mask) -> float:
    """The mean stroke width in pixels.

    Area divided by length, where the length is half of the outline; an outline measured along pixel edges is
    5/4 as long as the curve on average.
    """
    padded = np.pad(strokes, 1)
    outline = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    return float(2 * strokes.sum() / (0.8 * outline))


def _crop(region: FloatPixels, strokes: Mask) -> FloatPixels:
    """The square part of a region (H, W) around its strokes (h, w), which were found in a reduced copy."""
    factor = max(region.shape) / max(strokes.shape)
    box = [(edge.start * factor, edge.stop * factor) for edge in bounding_box(strokes)]
    reach = (0.5 + MARGIN) * max(stop - start for start, stop in box)
    rows, columns = (((start + stop) / 2 - reach, (start + stop) / 2 + reach) for start, stop in box)
    return region[max(0, int(rows[0])) : int(rows[1]) + 1, max(0, int(columns[0])) : int(columns[1]) + 1]


def _is_light_on_dark(pixels: FloatPixels) -> bool:
    """Whether the pixels that differ most from the background are lighter than it."""
    difference = _smooth(pixels) - _background(pixels, whole=_shows_table(pixels))
    return bool(difference.max() > -difference.min())


def _smooth(pixels: FloatPixels) -> FloatPixels:
    smooth: FloatPixels = ndimage.uniform_filter(pixels, 3, mode="nearest")
    return smooth


def _background(values: FloatPixels, *, whole: bool) -> FloatPixels:
    """Fit a cubic surface to the background of (h, w).

    whole: fit to all values rather than to those at the border, where there is little ink.

    The fit is iteratively reweighted least squares with Cauchy weights, which ignores outliers such as ink.
    """
    coarse = resize(values, min(values.shape[0], FIT_SIDE), min(values.shape[1], FIT_SIDE))
    sampled, terms = _samples(coarse.shape, whole)
    samples = coarse[sampled].astype(np.float64)
    residual = samples - np.median(samples)
    for _ in range(FIT_ROUNDS):
        weights = (1 + (residual / (1.5 * np.median(np.abs(residual)) + 1e-3)) ** 2) ** -2
        weighted = terms * weights
        # The normal equations; the ridge makes them solvable for pictures of a few pixels.
        fitted = np.linalg.solve(weighted @ terms.T + RIDGE, weighted @ samples)
        residual = samples - fitted @ terms
    coefficients = np.zeros((4, 4))
    coefficients[POWERS_Y, POWERS_X] = fitted
    y, x = (_powers(side) for side in values.shape)
    surface: FloatPixels = (y @ coefficients @ x.T).astype(np.float32)
    return surface


@lru_cache(maxsize=16)
def _samples(shape: tuple[int, int], whole: bool) -> tuple[Mask, NDArray[np.float64]]:
    """The pixels (h, w) that a surface is fitted to, all or those at the border, and its terms there (10, samples)."""
    sampled = np.ones(shape, dtype=bool)
    if not whole:
        sampled[2:-2, 2:-2] = False
    y, x = (_powers(side) for side in shape)
    rows, columns = np.nonzero(sampled)
    return sampled, np.ascontiguousarray((x[columns][:, POWERS_X] * y[rows][:, POWERS_Y]).T)


def _powers(side: int) -> NDArray[np.float64]:
    """The powers 0 to 3 of the places of pixels, from -1 to 1: (side, 4)."""
    powers: NDArray[np.float64] = np.vander(np.linspace(-1, 1, side), 4, increasing=True)
    return powers


def _shows_table(pixels: FloatPixels) -> bool:
    """Whether one edge differs from most of the picture, as in a photo that shows more than the paper."""
    dark = pixels < np.percentile(pixels, [2, 98]).mean()
    edges = [edge.mean() for edge in (dark[0], dark[-1], dark[:, 0], dark[:, -1])]
    return bool((dark.mean() < 0.4 and max(edges) > 0.98) or (dark.mean() > 0.6 and min(edges) < 0.02))


def _segment(pixels: FloatPixels) -> _Segments:
    """Segment dark strokes on a light background (h, w). Raises InvalidImage when there are none."""
    # Light multiplies, so the surface is fitted to its logarithm.
    logarithm = _background(np.log(np.maximum(pixels, MIN_BACKGROUND)), whole=_shows_table(pixels))
    even: FloatPixels = np.divide(pixels, np.exp(np.clip(logarithm, math.log(MIN_BACKGROUND), 0)), dtype=np.float32)
    smooth = even if _is_small(even) else _smooth(even)
    # First with a wide window, to measure the strokes ...
    strokes = _strokes(_density(smooth, _closed(smooth, math.ceil(MAX_HALF_STROKE * max(pixels.shape)))))
    # ... then with one just wider than they are, so that shadows count as background.
    closed = _closed(smooth, math.ceil(stroke_width(strokes)))
    density = _density(smooth, closed)
    strokes = _strokes(density)
    background = density[density <= FAINT * density.max()]
    contrast = np.median(density[strokes])
    if contrast < max(MIN_CONTRAST, background.mean() + MIN_CONTRAST_TO_NOISE * background.std()):
        raise no_ink()
    return _Segments(even, closed, strokes)


def _is_small(pixels: FloatPixels) -> bool:
    return bool(min(pixels.shape) < MIN_SMOOTHED_SIDE)


def _closed(pixels: FloatPixels, reach: int) -> FloatPixels:
    """The background (h, w) of dark strokes: the morphological closing by a square of 2 reach + 1.

    Squares that extend beyond the picture do not count, so strokes at its edge are found.
    """
    reach = max(2, min(reach, (min(pixels.shape) - 1) // 2))
    side = min(2 * reach + 1, *pixels.shape)
    closed: FloatPixels = ndimage.grey_closing(pixels, (side, side), mode="constant", cval=np.inf)
    return closed


def _density(pixels: FloatPixels, background: FloatPixels) -> FloatPixels:
    """The share (h, w) in [0, 1] of the background's brightness that is missing from each pixel."""
    density: FloatPixels = np.clip((background - pixels) / np.maximum(background, MIN_BACKGROUND), 0, 1)
    return density


def _strokes(density: FloatPixels) -> Mask:
    """The connected components that are strokes: not faint, not dirt, not the surface below the paper."""
    densest = density.max()
    if densest == 0:
        raise no_ink()
    labels, count = ndimage.label(density > FAINT * densest, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    is_stroke = np.zeros(count + 1, dtype=bool)
    is_stroke[labels[density >= STRONG * densest]] = True
    is_stroke &= areas >= MIN_AREA * areas[is_stroke].max()
    is_table = np.zeros(count + 1, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_table |= np.bincount(edge, minlength=count + 1) >= EDGE_COVERAGE * edge.size
    if (is_stroke & ~is_table).any():
        is_stroke &= ~is_table
        is_stroke &= areas >= MIN_AREA * areas[is_stroke].max()
    is_stroke[0] = False
    strokes: Mask = is_stroke[labels]
    return strokes

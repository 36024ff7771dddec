"""A picture to a row: a photo or drawing becomes a centred digit. Knows nothing of files, models or HTTP.

The form is that of MNIST (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"):
"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box
while preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing
technique used by the normalization algorithm. The images were centered in a 28x28 image by computing the
center of mass of the pixels, and translating the image so as to position this point at the center of the
28x28 field."

In the files themselves the translation is by whole pixels: in all 70,000 images the centre of mass, counted
from 0 at the middle of the first pixel, lies in [13.48, 14.5) on both axes, that is, half a pixel around 14.
"""

import numpy as np
from PIL import Image

from app.images.decode import Picture
from app.images.ink import find_ink, no_ink, stroke_width
from app.images.planes import Pixels, border, bounds, dilate, resize

# A border darker than this on average is the ground of a row. Of the 70,000 MNIST images 920 have ink on the
# border, and the lightest border has a mean of 0.033; that of a picture dark on light is far above.
DARK_BORDER = 0.1
# A picture is looked at with its longer side at most this long, or this many times the box, which averages
# the paper's grain and the sensor's noise away; then again, closer, so that a small digit is seen as well as
# a large one.
LOOK_SIDE, LOOK_BOXES = 128, 4
# The middle half of MNIST's strokes are 2.1 to 2.9 pixels wide in their box of 20, and 98% are 1.4 to 4.5;
# thinner ones are drawn this wide, as a share of the box.
LEAST_STROKE = 0.1


def normalize(picture: Picture, *, size: int = 28, box: int = 20) -> Pixels:
    """Bring a drawn, scanned or photographed digit to the form of MNIST.

    The digit may be dark on light or light on dark, on transparency or on unevenly lit paper, of any size and
    anywhere in the picture. Ink is what differs most from the ground that the picture's border shows. The
    ink's bounding box is scaled, keeping its aspect ratio, so that its longer side is `box` pixels (at most
    `size`), and placed in whole pixels so that its centre of mass comes as close to the middle, size / 2, as
    it can without leaving the image. Strokes that would be thinner than MNIST's are thickened.

    An opaque picture of size x size with a dark border has this form already and passes unchanged.

    Returns float32 (1, size, size) in [0, 1], ink bright on dark ground. Raises InvalidImage when there is no
    ink.
    """
    if has_form(picture, size):
        if picture.luminance.max() < DARK_BORDER:
            raise no_ink()
        return picture.luminance[None].copy()
    ink = _thicken(find_ink(_composite(picture), max(LOOK_SIDE, LOOK_BOXES * box)), box)
    return _centre(_scale(ink, box), size)[None]


def has_form(picture: Picture, size: int) -> bool:
    """Whether a picture is of the form already: opaque, size x size, and dark at its border."""
    luminance = picture.luminance
    return picture.alpha is None and luminance.shape == (size, size) and bool(border(luminance).mean() < DARK_BORDER)


def fit(picture: Picture, *, size: int = 28) -> Pixels:
    """Resize a picture to size x size, with antialiasing, and change nothing else; transparent becomes black.

    Returns float32 (1, size, size) in [0, 1]; an opaque picture of this size keeps its pixels as they are.
    """
    luminance = picture.luminance
    if picture.alpha is not None:
        luminance = luminance * picture.alpha
    if luminance.shape != (size, size):
        luminance = np.clip(resize(luminance, size, size, Image.Resampling.BICUBIC), 0, 1)
    return luminance[None].copy()


def _composite(picture: Picture) -> Pixels:
    """Put what may be transparent on a ground that its ink stands out from."""
    luminance, alpha = picture.luminance, picture.alpha
    if alpha is None:
        return luminance
    if not alpha.any():
        raise no_ink()
    opaque = alpha > 0.5
    ground = 1.0 if np.average(luminance, weights=alpha) < 0.5 else 0.0
    if opaque.any():
        # A sheet with ink on it, cut out, rather than ink alone: the sheet goes on.
        low, middle, high = np.percentile(luminance[opaque], [2, 50, 98])
        if opaque[bounds(opaque)].mean() > 0.6 and high - low > 0.25:
            ground = middle
    return alpha * luminance + (1 - alpha) * np.float32(ground)


def _thicken(ink: Pixels, box: int) -> Pixels:
    """Draw strokes that would be thinner in the box than MNIST's with a wider pen."""
    strokes = ink > 0.5
    pixel = max(edge.stop - edge.start for edge in bounds(strokes)) / box  # of the row, in pixels of the ink
    missing = round((LEAST_STROKE * box * pixel - stroke_width(strokes)) / 2)
    return dilate(np.pad(ink, missing), missing) if missing > 0 else ink


def _scale(ink: Pixels, box: int) -> Pixels:
    """Cut out the ink (h, w) and scale it so that its longer side is `box`."""
    rows, columns = bounds(ink > 0.4)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    factor = box / max(height, width)
    digit = resize(
        ink,
        max(1, round(height * factor)),
        max(1, round(width * factor)),
        Image.Resampling.BOX if factor <= 1 else Image.Resampling.BILINEAR,
        (columns.start, rows.start, columns.stop, rows.stop),
    )
    return digit / np.float32(digit.max())


def _centre(digit: Pixels, size: int) -> Pixels:
    """Place a digit on a dark square, in whole pixels, its centre of mass in [size/2 - 1/2, size/2 + 1/2)."""
    corner = []
    for axis in (0, 1):
        mass = digit.sum(axis=1 - axis, dtype=np.float64)
        middle = (mass @ np.arange(mass.size)) / mass.sum()
        corner.append(int(np.clip(np.ceil(size / 2 - 0.5 - middle), 0, size - mass.size)))
    row = np.zeros((size, size), dtype=np.float32)
    row[corner[0] : corner[0] + digit.shape[0], corner[1] : corner[1] + digit.shape[1]] = digit
    return row

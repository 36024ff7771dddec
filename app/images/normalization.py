"""Normalization of a photo or drawing of a digit to the form of MNIST.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits": "The original black and
white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while preserving their aspect
ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used by the
normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the pixels,
and translating the image so as to position this point at the center of the 28x28 field."

The published images are translated by whole pixels: in all 70,000 the centre of mass, counted from 0 at the middle
of the first pixel, lies in [13.48, 14.5) on both axes.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from app.images.decode import Picture
from app.images.resize import FloatPixels, reduce, resize
from app.images.segmentation import bounding_box, find_ink, no_ink, stroke_width

# A border with a lower mean is the background of a normalized image. Of the 70,000 MNIST images 920 have ink on the
# border, with a mean of at most 0.033; the border of a picture that is dark on light is far brighter.
DARK_BORDER = 0.1
# The longer side, in pixels and in boxes, of the reduced picture in which ink is searched.
SEARCH_SIDE, SEARCH_BOXES = 128, 4
# The longer side of the reduced picture from which the tones of a transparent one are taken.
TONES_SIDE = 256
# The narrowest stroke, as a share of the box. In MNIST's box of 20 pixels half of all strokes are 2.1 to 2.9 pixels
# wide, and 98% are 1.4 to 4.5.
MIN_STROKE = 0.1


def normalize(picture: Picture, *, size: int = 28, box: int = 20) -> FloatPixels:
    """Bring a drawn, scanned or photographed digit to the form of MNIST.

    The digit may be dark on light or light on dark, transparent or on unevenly lit paper, of any size and anywhere
    in the picture. Ink is what differs most from the background at the picture's border. The ink's bounding box is
    scaled, keeping its aspect ratio, so that its longer side is `box` pixels (at most `size`), and placed in whole
    pixels so that its centre of mass is as close to the middle, size / 2, as the image's edges allow. Strokes
    thinner than MNIST's are thickened.

    An opaque picture of size x size with a dark border has this form already and is returned unchanged.

    Returns float32 (1, size, size) in [0, 1], bright ink on a dark background. Raises InvalidImage for a blank
    picture.
    """
    box = min(box, size)
    if _has_form(picture, size):
        if picture.luminance.max() < DARK_BORDER:
            raise no_ink()
        return picture.luminance[None].copy()
    ink = _thicken(find_ink(_composite(picture), max(SEARCH_SIDE, SEARCH_BOXES * box)), box)
    return _centre(_scale(ink, box), size)[None]


def _has_form(picture: Picture, size: int) -> bool:
    """Whether a picture is opaque, size x size, and dark at its border, as normalized images are."""
    if not picture.is_opaque_square(size):
        return False
    luminance = picture.luminance
    border = np.concatenate([luminance[0], luminance[-1], luminance[1:-1, 0], luminance[1:-1, -1]])
    return bool(border.mean() < DARK_BORDER)


def fit(picture: Picture, *, size: int = 28) -> FloatPixels:
    """Resize a picture to size x size, with antialiasing; transparent becomes black.

    Returns float32 (1, size, size) in [0, 1]; an opaque picture of this size is returned unchanged.
    """
    luminance = picture.luminance
    if picture.alpha is not None:
        luminance = luminance * picture.alpha
    if luminance.shape != (size, size):
        luminance = np.clip(resize(luminance, size, size, Image.Resampling.BICUBIC), 0, 1)
    return luminance[None].copy()


def _composite(picture: Picture) -> FloatPixels:
    """Put a picture that is partly transparent on a background that contrasts with its ink."""
    luminance, alpha = picture.luminance, picture.alpha
    if alpha is None:
        return luminance
    if not alpha.any():
        raise no_ink()
    visible = alpha * luminance
    shares, tones = reduce(alpha, TONES_SIDE), reduce(visible, TONES_SIDE)
    background = 1.0 if tones.sum() < shares.sum() / 2 else 0.0
    opaque = shares > 0.5
    if opaque.any():
        # A cut-out sheet of paper with ink on it, rather than ink alone: its paper is extended.
        low, middle, high = np.percentile(tones[opaque] / shares[opaque], [2, 50, 98])
        if opaque[bounding_box(opaque)].mean() > 0.6 and high - low > 0.25:
            background = middle
    return visible + (1 - alpha) * np.float32(background)


def _thicken(ink: FloatPixels, box: int) -> FloatPixels:
    """Dilate strokes that would be thinner in the box than MNIST's."""
    strokes = ink > 0.5
    pixel = max(edge.stop - edge.start for edge in bounding_box(strokes)) / box  # of the result, in pixels of the ink
    missing = round((MIN_STROKE * box * pixel - stroke_width(strokes)) / 2)
    if missing <= 0:
        return ink
    thick: FloatPixels = ndimage.maximum_filter(np.pad(ink, missing), 2 * missing + 1)
    return thick


def _scale(ink: FloatPixels, box: int) -> FloatPixels:
    """Crop to the ink (h, w) and scale it so that its longer side is `box`."""
    rows, columns = bounding_box(ink > 0.4)
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


def _centre(digit: FloatPixels, size: int) -> FloatPixels:
    """Place a digit on a dark square, in whole pixels, its centre of mass in [size/2 - 1/2, size/2 + 1/2)."""
    corner = []
    for middle, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True):
        corner.append(int(np.clip(np.ceil(size / 2 - 0.5 - middle), 0, size - side)))
    image = np.zeros((size, size), dtype=np.float32)
    image[corner[0] : corner[0] + digit.shape[0], corner[1] : corner[1] + digit.shape[1]] = digit
    return image

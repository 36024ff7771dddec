"""Warnings that a normalized image shows more than a single digit, found in its connected components."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.images.segmentation import Mask

WarningCode = Literal["frame", "several_shapes"]

# The lowest brightness of ink, and the smallest share of all ink that counts as a shape.
INK, MIN_SHARE = 0.4, 0.08
# A frame covers at least this share of each side of its bounding box, within this many pixels of it.
FRAME_SIDE, FRAME_REACH = 0.85, 2
# Shapes side by side have at least this share of the height of the highest one. An 8 in two pieces, or a 5 with its bar
# apart, is not side by side.
MIN_HEIGHT = 0.55


def find_warnings(image: NDArray[np.float32]) -> list[WarningCode]:
    """The warnings about `image` (H, W), in [0, 1] and bright on dark.

    frame: a shape like a box has other ink inside. several_shapes: shapes of similar height stand side by side, with a
    gap between them.
    """
    labels, count = ndimage.label(image > INK, np.ones((3, 3)))
    if count < 2:  # most images: a frame has ink apart from it inside, and one shape has no gap
        return []
    boxes = ndimage.find_objects(labels)
    masks = [labels == number for number in range(1, count + 1)]
    least = MIN_SHARE * sum(mask.sum() for mask in masks)
    shapes = [(mask, box) for mask, box in zip(masks, boxes, strict=True) if mask.sum() >= least]
    frames = [
        box for mask, box in shapes if _is_frame(mask[box]) and any(_is_inside(other, box) for _, other in shapes)
    ]
    inner = [mask for mask, box in shapes if box not in frames]
    warnings: list[WarningCode] = ["frame"] if frames else []
    if inner and len(_heights_side_by_side(np.any(inner, axis=0))) > 1:
        warnings.append("several_shapes")
    return warnings


def _is_frame(shape: Mask) -> bool:
    """Whether a shape (h, w), cut to its bounding box, covers all four sides of it."""
    reach = FRAME_REACH
    sides = (shape[:reach].any(0), shape[-reach:].any(0), shape[:, :reach].any(1), shape[:, -reach:].any(1))
    return bool(min(side.mean() for side in sides) >= FRAME_SIDE)


def _is_inside(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> bool:
    return inner is not outer and all(b.start < a.start and a.stop < b.stop for a, b in zip(inner, outer, strict=True))


def _heights_side_by_side(ink: Mask) -> list[int]:
    """The heights of the parts of `ink` (H, W) that are separated by empty columns, without low parts."""
    runs, count = ndimage.label(ink.any(axis=0))
    heights = [int(np.ptp(np.nonzero(ink[:, runs == number].any(axis=1))[0])) + 1 for number in range(1, count + 1)]
    return [height for height in heights if height >= MIN_HEIGHT * max(heights)]

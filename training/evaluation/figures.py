"""Figures from values: means over seeds, over draws of real images, and over test images."""

import math
import statistics
from collections.abc import Sequence

from torch import Tensor

from app.checkpoints.manifest import Figure, Manifest


def over_seeds(values: Sequence[float], floors: Sequence[float] = (), **rest: object) -> Figure:
    """A figure from one value per seed: their mean and their standard deviation.

    `floors` are the values of disjoint draws of real images, whose mean and deviation become the floor.
    """
    value, deviation = mean_and_deviation(values)
    if floors:
        floor, floor_deviation = mean_and_deviation(floors)
        rest |= {"floor": floor, "floor_deviation": floor_deviation}
    return Figure.model_validate({"value": value, "deviation": deviation} | rest)


def over_images(values: Tensor, **rest: object) -> Figure:
    """A figure from one value per test image `(N,)`: their mean, and its standard error for more than one."""
    doubles = values.double()
    error = float(doubles.std() / math.sqrt(len(doubles))) if len(doubles) > 1 else None
    return Figure.model_validate({"value": float(doubles.mean()), "standard_error": error} | rest)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the deviation of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def given_text(manifest: Manifest) -> str:
    """What the unit of a likelihood says of a conditional model: the label is worth up to log(classes)."""
    return ", given the label" if manifest.conditional else ""

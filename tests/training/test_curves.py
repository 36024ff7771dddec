"""The history as CSV and as plots, read again."""

import csv
import io

import pytest
from PIL import Image

from training.curves import csv_bytes, curves_png

HISTORY = [
    {"epoch": 1, "discriminator": 1.25, "generator": 0.1},
    {"epoch": 2, "discriminator": 1.0 / 3, "generator": 7.5},
]


def test_csv_has_a_line_per_epoch_with_all_digits():
    rows = list(csv.DictReader(io.StringIO(csv_bytes(HISTORY).decode())))
    assert csv_bytes(HISTORY).decode().splitlines()[0] == "epoch,discriminator,generator"
    assert [{name: float(value) for name, value in row.items()} for row in rows] == HISTORY


@pytest.mark.parametrize("losses", [1, 2])
def test_curves_are_a_png_with_one_plot_per_loss(losses):
    history = [dict(list(row.items())[: losses + 1]) for row in HISTORY]
    with Image.open(io.BytesIO(curves_png(history))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (500 * losses, 350)


def test_curves_follow_the_losses():
    flat = [row | {"generator": 7.5} for row in HISTORY]
    assert curves_png(HISTORY) == curves_png(HISTORY)
    assert curves_png(HISTORY) != curves_png(flat)

"""The history of a run as CSV and as plots."""

import csv
import io
import math

from matplotlib.figure import Figure

CURVES_ACROSS = 4


def csv_bytes(history: list[dict[str, float]]) -> bytes:
    """The history as CSV with a header line. A cell is empty where an epoch was not measured."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns(history))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def read_csv(content: bytes) -> list[dict[str, float]]:
    """The history of `csv_bytes`."""
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def columns(history: list[dict[str, float]]) -> list[str]:
    """The names in any row of the history, in order of appearance."""
    return list(dict.fromkeys(name for row in history for name in row))


def curves_png(history: list[dict[str, float]]) -> bytes:
    """PNG with one plot for each loss and figure over the epochs."""
    # A Figure without pyplot needs no display and has no global state.
    names = [name for name in columns(history) if name != "epoch"]
    across = min(len(names), CURVES_ACROSS)
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(5 * across, 3.5 * down), layout="constrained")
    plots = figure.subplots(down, across, squeeze=False).flatten()
    for axes, name in zip(plots, names, strict=False):
        rows = [row for row in history if name in row]
        axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker=".")
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", " "))
        axes.grid(alpha=0.3)
    for axes in plots[len(names) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

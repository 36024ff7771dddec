"""Curves, tables and sample grids of a run. Knows nothing of how a family learns."""

import csv
import io
import math
from pathlib import Path

from matplotlib.figure import Figure
from torch import nn

from training.config import TrainConfig
from training.files import write_atomically
from training.pictures import sample_grid
from training.sampling import Form
from training.watching import WATCHED, losses_of

CURVES_ACROSS = 4


def write_progress(
    config: TrainConfig, history: list[dict[str, float]], network: nn.Module, form: Form, classes: int
) -> Path:
    """After an epoch: `metrics.csv`, `curves.png` and a grid of the same noise as every epoch, whose file is given."""
    write_atomically(config.run_dir / "metrics.csv", csv_bytes(history))
    write_atomically(config.run_dir / "curves.png", curves_png(history))
    grid = sample_grid(network, form, classes, config.seed, WATCHED)
    path = config.run_dir / "samples" / f"epoch-{len(history):04d}.png"
    write_atomically(path, grid)
    return path


def csv_bytes(history: list[dict[str, float]]) -> bytes:
    """The history as CSV with a header line; empty where an epoch was not measured."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns(history))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def columns(history: list[dict[str, float]]) -> list[str]:
    """The names in any row of the history, in order of appearance."""
    return list(dict.fromkeys(name for row in history for name in row))


def curves_png(history: list[dict[str, float]]) -> bytes:
    """One plot a loss and a figure over the epochs that have it, as PNG."""
    # A Figure without pyplot: no display, no global state.
    names = [name for name in columns(history) if name != "epoch"]
    losses = losses_of(history[0])
    across = min(len(names), CURVES_ACROSS)
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(5 * across, 3.5 * down), layout="constrained")
    plots = figure.subplots(down, across, squeeze=False).flatten()
    for axes, name in zip(plots, names, strict=False):
        rows = [row for row in history if name in row]
        axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker=".")
        axes.set_xlabel("epoch")
        axes.set_title(f"{name.replace('_', ' ')} (nats)" if name in losses else name.replace("_", " "))
        axes.grid(alpha=0.3)
    for axes in plots[len(names) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

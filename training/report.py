"""Curves, tables and sample grids of a run. Knows nothing of how a family learns."""

import csv
import io

from matplotlib.figure import Figure

from training.config import TrainConfig
from training.families.family import Learner
from training.files import write_atomically
from training.pictures import sample_grid
from training.sampling import Controls


def write_progress(config: TrainConfig, history: list[dict[str, float]], learner: Learner, classes: int) -> None:
    """After an epoch: `metrics.csv`, `curves.png` and a grid of the same noise as every epoch."""
    write_atomically(config.run_dir / "metrics.csv", csv_bytes(history))
    write_atomically(config.run_dir / "curves.png", curves_png(history))
    # Nothing is fitted to the latents before the run has ended.
    grid = sample_grid(learner.archive(), learner, classes, config.seed, Controls(prior="normal"))
    write_atomically(config.run_dir / "samples" / f"epoch-{len(history):04d}.png", grid)


def csv_bytes(history: list[dict[str, float]]) -> bytes:
    """The history as CSV with a header line."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


# What of a history is in nats.
LOSSES = {"negative_elbo", "kl_divergence", "discriminator", "generator"}


def curves_png(history: list[dict[str, float]]) -> bytes:
    """One plot a loss or figure over the epochs, as PNG."""
    # A Figure without pyplot: no display, no global state.
    names = [name for name in history[0] if name != "epoch"]
    figure = Figure(figsize=(5 * len(names), 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot([row["epoch"] for row in history], [row[name] for row in history], marker=".")
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", " ") + (" (nats)" if name in LOSSES else ""))
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

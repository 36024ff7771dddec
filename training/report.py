"""Curves, tables and sample grids of a run. Knows nothing of how a family learns."""

import csv
import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from app.checkpoints.manifest import Archive, Manifest
from training.config import TrainConfig
from training.families.family import Learner
from training.files import write_atomically
from training.sampling import PLAIN, Controls, Form, balanced, draw_images, gives_labels

SAMPLE_ROWS, SAMPLE_COLUMNS = 8, 8
# Of models whose images have labels; classes beyond these take their turn in the next row.
GRID_COLUMNS = 10


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


def curves_png(history: list[dict[str, float]]) -> bytes:
    """One plot a loss over the epochs, as PNG."""
    # A Figure without pyplot: no display, no global state.
    names = [name for name in history[0] if name != "epoch"]
    figure = Figure(figsize=(5 * len(names), 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot([row["epoch"] for row in history], [row[name] for row in history], marker=".")
        axes.set_xlabel("epoch")
        axes.set_title(f"{name.replace('_', ' ')} (nats)")
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def sample_grid(network: nn.Module, form: Form, classes: int, seed: int, controls: Controls = PLAIN) -> bytes:
    """Images of fixed noise as a PNG grid, two screen pixels a pixel: a column a class where they have labels."""
    columns = min(classes, GRID_COLUMNS) if gives_labels(form, controls) else SAMPLE_COLUMNS
    labels = balanced(SAMPLE_ROWS * columns, classes)
    return grid_png(draw_images(network, form, labels, seed, controls), columns)


def grid_png(images: Tensor, columns: int, scale: int = 2) -> bytes:
    """uint8 images `(B, 1, H, W)`, B a multiple of `columns`, as one PNG, row by row."""
    count, _, height, width = images.shape
    cells = images.numpy().reshape(count // columns, columns, height, width).swapaxes(1, 2)
    grid = cells.reshape(count // columns * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(grid, np.ones((scale, scale), np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


def card(manifest: Manifest) -> str:
    """The model card as Markdown, all of it from the manifest."""
    archives = "\n".join(
        f"| {precision} | `{archive.file}` | {archive.bytes:,} | {deviation_text(archive)} | `{archive.digest}` |"
        for precision, archive in manifest.archives.items()
    )
    record = manifest.training
    figures = "\n".join(
        f"| {name.replace('_', ' ')} | {figure.value:.3f} | {figure.floor:.3f} | {figure.ceiling:.3f} | {figure.unit} |"
        for name, figure in manifest.quality.figures.items()
    )
    parameters = ", ".join(f"{name} {count:,}" for name, count in record.parameters.items())
    settings = ", ".join(f"{name} {value}" for name, value in record.config.items())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return f"""# {manifest.name}

A `{manifest.family}` trained on {manifest.dataset.name} ({manifest.dataset.train_images:,} images).
Capabilities: {", ".join(manifest.capabilities)}.

![samples of fixed noise](samples.png)

## Quality, protocol `{manifest.quality.protocol}`

Lower is better. The floor is what a perfect model would get, the ceiling what a useless one gets.

| figure | value | floor | ceiling | unit |
| --- | --- | --- | --- | --- |
{figures}

## Archives

| precision | file | bytes | largest difference of a pixel from float32 | SHA-256 |
| --- | --- | --- | --- | --- |
{archives}

## Training

- {record.epochs} epochs, seed {record.seed}; parameters: {parameters}
- settings: {settings}
- made with {versions}, source {record.source_commit}
- dataset SHA-256 `{manifest.dataset.digest}`
"""


def deviation_text(archive: Archive) -> str:
    """How far an archive's images are from those of the float32 one."""
    if archive.deviation is None:
        return "0"
    return f"{255 * archive.deviation.largest:.2f}/255 over {archive.deviation.images:,} images"

"""Curves, tables and sample grids of a run. Knows nothing of how a family learns."""

import csv
import io

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from app.checkpoints.manifest import Archive, Manifest
from training.config import TrainConfig
from training.families.family import Learner
from training.files import write_atomically

SAMPLE_ROWS, SAMPLE_COLUMNS = 8, 8


def write_progress(config: TrainConfig, history: list[dict[str, float]], learner: Learner) -> None:
    """After an epoch: `metrics.csv`, `curves.png` and a grid of the same noise as every epoch."""
    write_atomically(config.run_dir / "metrics.csv", csv_bytes(history))
    write_atomically(config.run_dir / "curves.png", curves_png(history))
    grid = sample_grid(learner.archive(), learner.latent_dim, config.seed)
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


@torch.no_grad()
def sample_grid(archive: torch.nn.Module, latent_dim: int, seed: int) -> bytes:
    """Images of fixed noise as a PNG grid, two screen pixels a pixel."""
    source = torch.Generator().manual_seed(seed)
    latents = torch.randn(SAMPLE_ROWS * SAMPLE_COLUMNS, latent_dim, generator=source)
    device = next(archive.parameters()).device
    images: Tensor = archive.generate(latents.to(device))  # type: ignore[operator]
    return grid_png(images, SAMPLE_COLUMNS)


def grid_png(images: Tensor, columns: int, scale: int = 2) -> bytes:
    """Images `(B, 1, H, W)` in [0, 1], B a multiple of `columns`, as one PNG, row by row."""
    count, _, height, width = images.shape
    pixels = (images.float().cpu() * 255).round().to(torch.uint8).numpy()
    cells = pixels.reshape(count // columns, columns, height, width).swapaxes(1, 2)
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

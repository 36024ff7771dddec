"""The film of a run: the pictures of the same noise after each epoch in one strip, and the history beside it."""

import io
import logging
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.checkpoints.files import write_atomically
from app.checkpoints.manifest import Manifest
from app.checkpoints.pictures import HISTORY, History
from training.curves import read_csv
from training.monitoring import losses_of

log = logging.getLogger(__name__)

FILM = "film.png"
FRAMES = 40  # at most, and the exported epoch
ROWS, COLUMNS = 4, 5  # of the images in a frame, at most
LEVELS = 16  # of grey: less than half the bytes of 256, and hardly a difference to the eye
SIGNIFICANT_DIGITS = 6  # of a number of the history


def film_files(manifest: Manifest, history: list[dict[str, float]], run_dir: Path) -> dict[str, bytes]:
    """The history, and the film if the run has pictures, by file name."""
    exported = manifest.training.epoch or manifest.training.epochs
    paths = {epoch: run_dir / "samples" / f"epoch-{epoch:04d}.png" for epoch in range(1, len(history) + 1)}
    shown = frame_epochs([epoch for epoch, path in paths.items() if path.is_file()], exported)
    rows = tuple({name: rounded(value) for name, value in row.items() if math.isfinite(value)} for row in history)
    content = History(epochs=rows, exported=exported, film=tuple(shown)).model_dump_json() + "\n"
    files = {HISTORY: content.encode()}
    if shown:
        by_columns = "generate" not in manifest.capabilities  # the rows of an upscaler's grid belong together
        frames = [frame(paths[epoch], manifest.image.shape[1], by_columns=by_columns) for epoch in shown]
        files[FILM] = film_png(np.concatenate(frames))
    return files


def rounded(value: float) -> float:
    """A number with few digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def frame_epochs(epochs: list[int], exported: int) -> list[int]:
    """At most FRAMES epochs, evenly chosen, the first and the last one included; and the exported one."""
    count = min(len(epochs), FRAMES)
    evenly = {epochs[round(i * (len(epochs) - 1) / max(count - 1, 1))] for i in range(count)}
    return sorted(evenly | ({exported} & set(epochs)))


def frame(path: Path, side: int, *, by_columns: bool) -> NDArray[np.uint8]:
    """The first images of a grid that `training.previews` made, uint8 `(rows * side, columns * side)`.

    by_columns: the first columns of the grid, rather than its first images in the order of its rows.
    """
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))[::2, ::2]  # a preview has each pixel at twice its size
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    cells = pixels.reshape(rows, side, columns, side).swapaxes(1, 2)
    if by_columns:
        cells = cells[:, :COLUMNS]
    else:
        across = min(COLUMNS, rows * columns)
        down = min(ROWS, rows * columns // across)
        cells = cells.reshape(-1, side, side)[: down * across].reshape(down, across, side, side)
    return cells.swapaxes(1, 2).reshape(cells.shape[0] * side, cells.shape[1] * side)


def film_png(film: NDArray[np.uint8]) -> bytes:
    """Grey values `(H, W)` as a PNG of LEVELS levels."""
    step = 255 // (LEVELS - 1)
    image = Image.fromarray(np.round(film / step).astype(np.uint8)).convert("P")
    image.putpalette([level * step for level in range(LEVELS) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=4, optimize=True)
    return buffer.getvalue()


def add_film(directory: Path, manifest: Manifest, run_dir: Path) -> None:
    """Write the history and the film of a run beside the checkpoint that it made; nothing for another run.

    Raises OSError.
    """
    try:
        history = read_csv((run_dir / "metrics.csv").read_bytes())
    except FileNotFoundError:
        return
    except ValueError as error:
        log.info("%s cannot be read: %s; no film", run_dir / "metrics.csv", error)
        return
    record = manifest.training
    epoch = record.epoch or record.epochs
    if len(history) != record.epochs or losses_of(history[epoch - 1]) != record.losses:
        log.info("%s is not the run that made %s: no film", run_dir, directory)
        return
    for name, content in film_files(manifest, history, run_dir).items():
        write_atomically(directory / name, content)

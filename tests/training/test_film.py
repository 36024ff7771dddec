"""The film of a run and its history: what an export writes, and what can be added to a checkpoint later."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.checkpoints.pictures import History, read_history
from tests.training.conftest import manifest_of, rows_of
from training.curves import csv_bytes, read_csv
from training.evaluation.evaluate import DocumentConfig, write_documents
from training.film import add_film, film_files, frame, frame_epochs
from training.previews import grid_png


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def images_of(grid: np.ndarray, columns: int) -> np.ndarray:
    """The images of a grid, row by row, int `(n, 28, 28)`."""
    return grid.reshape(-1, 28, columns, 28).swapaxes(1, 2).reshape(-1, 28, 28).astype(int)


@pytest.fixture
def checkpoint(vae_run, tmp_path):
    """A copy of a checkpoint from before there were films."""
    copy = tmp_path / "models" / "vae"
    shutil.copytree(vae_run.models_dir / "vae", copy)
    for name in ("film.png", "history.json", "examples.png"):
        (copy / name).unlink()
    return copy


def test_an_export_has_the_history_of_its_run(vae_run):
    history = read_history(vae_run.models_dir / "vae")
    assert history is not None
    assert history.exported == (manifest_of(vae_run).training.epoch or 3)
    assert history.film == (1, 2, 3)
    for row, measured in zip(history.epochs, rows_of(vae_run), strict=True):
        assert row == {name: pytest.approx(float(value), rel=1e-5) for name, value in measured.items() if value}


def test_a_film_has_a_frame_of_each_epoch_with_the_first_images_of_its_preview(vae_run):
    film = images_of(pixels(vae_run.models_dir / "vae" / "film.png"), 5)
    assert film.shape == (3 * 20, 28, 28)
    for i in range(3):
        preview = images_of(pixels(vae_run.run_dir / "samples" / f"epoch-{i + 1:04d}.png")[::2, ::2], 8)
        assert np.abs(film[20 * i : 20 * i + 20] - preview[:20]).max() <= 255 / 15 / 2  # of 16 levels of grey


def test_a_film_of_many_epochs_has_few_frames_with_the_first_last_and_exported_epoch():
    assert frame_epochs([1, 2, 5], 2) == [1, 2, 5]
    assert frame_epochs([], 1) == []
    assert frame_epochs([1], 1) == [1]
    many = frame_epochs(list(range(1, 1001)), 500)
    assert {1, 500, 1000} <= set(many)
    assert len(many) <= 41
    assert max(np.diff(many)) < 30


@pytest.mark.parametrize(
    ("rows", "columns", "expected"), [(8, 8, (4, 5)), (8, 2, (3, 5)), (8, 10, (4, 5)), (3, 1, (1, 3))]
)
def test_a_frame_fits_grids_of_few_images(tmp_path, rows, columns, expected):
    images = torch.arange(rows * columns, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 7, 7).contiguous()
    path = tmp_path / "grid.png"
    path.write_bytes(grid_png(images, columns))
    found = frame(path, 7, by_columns=False)
    assert found.shape == (expected[0] * 7, expected[1] * 7)
    assert found[::7, ::7].flatten().tolist() == list(range(expected[0] * expected[1]))


def test_a_frame_of_rows_that_belong_together_has_their_first_columns(tmp_path):
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 7, 7).contiguous()
    path = tmp_path / "grid.png"
    path.write_bytes(grid_png(images, 10))
    assert frame(path, 7, by_columns=True)[::7, ::7].tolist() == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]


def test_numbers_that_are_not_finite_are_left_out_of_a_history(vae_run):
    history = [{"epoch": n, "loss": 1.23456789, "frechet_distance": float("nan")} for n in (1, 2, 3)]
    content = film_files(manifest_of(vae_run), history, vae_run.run_dir)["history.json"]
    assert History.model_validate_json(content).epochs[0] == {"epoch": 1, "loss": 1.23457}


def test_a_history_survives_its_table():
    history = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-9, "recall": 0.5}]
    assert read_csv(csv_bytes(history)) == history


def test_documenting_adds_film_and_history_to_a_checkpoint(vae_run, checkpoint, tmp_path):
    document = tmp_path / "quality.md"
    document.write_text("<!-- quality: begin --><!-- quality: end -->")
    config = DocumentConfig(models_dir=checkpoint.parent, document=document, runs_dir=vae_run.runs_dir)
    manifest = (checkpoint / "manifest.json").read_bytes()
    write_documents(config)
    for name in ("film.png", "history.json"):
        assert (checkpoint / name).read_bytes() == (vae_run.models_dir / "vae" / name).read_bytes()
    assert (checkpoint / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("change", ["loss", "epochs", "text", "nothing"])
def test_another_run_of_that_name_adds_nothing(vae_run, checkpoint, tmp_path, change):
    run = tmp_path / "run"
    if change != "nothing":
        shutil.copytree(vae_run.run_dir, run)
        history = read_csv((run / "metrics.csv").read_bytes())
        for row in history:
            row["negative_elbo"] += change == "loss"
        content = csv_bytes(history[: 2 if change == "epochs" else 3])
        (run / "metrics.csv").write_bytes(b"epoch\nnone\n" if change == "text" else content)
    before = sorted(path.name for path in checkpoint.iterdir())
    add_film(checkpoint, manifest_of(vae_run), run)
    assert sorted(path.name for path in checkpoint.iterdir()) == before

"""Calibration: what it chooses of what it measured, and that a start reads what it wrote."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from app.calibrate import BATCH_ROWS, Measurement, best, measure, table, write
from app.settings import Settings
from tests.conftest import ROOT
from tests.tiny_models import write_checkpoints


def measured(**models: Mapping[tuple[int, int], float]) -> list[Measurement]:
    """Rates by model, workers and rows."""
    return [Measurement(name, *choice, rate) for name, rates in models.items() for choice, rate in rates.items()]


def test_the_fastest_choice_wins():
    assert best(measured(a={(1, 8): 100, (2, 8): 190, (1, 16): 110, (2, 16): 210})) == (2, 16)


def test_of_choices_about_as_fast_the_smallest_batch_wins_and_then_the_fewest_workers():
    assert best(measured(a={(1, 8): 98, (2, 8): 99, (1, 16): 97, (2, 16): 100})) == (1, 8)


def test_models_weigh_alike_however_fast_they_are():
    quick = {(1, 8): 9000, (1, 16): 10000}
    slow = {(1, 8): 100, (1, 16): 60}
    assert best(measured(quick=quick, slow=slow)) == (1, 8)


def test_every_shipped_model_is_measured_with_every_size_of_batch():
    settings = Settings(models_dir=ROOT / "models", device="cpu")
    found = list(measure(settings, seconds=0.01))
    shipped = {path.parent.name for path in settings.models_dir.glob("*/manifest.json")}
    assert {(one.model, one.batch_rows) for one in found} == {(name, rows) for name in shipped for rows in BATCH_ROWS}
    assert all(one.rows_per_second > 0 for one in found)
    assert best(found) in {(one.workers, one.batch_rows) for one in found}
    lines = table(found).splitlines()
    assert len(lines) == 1 + len({(one.model, one.workers) for one in found})


def test_models_with_labels_are_measured_too(tmp_path, monkeypatch):
    monkeypatch.setattr("app.calibrate.BATCH_ROWS", (4,))
    write_checkpoints(tmp_path)
    found = {one.model: one.rows_per_second for one in measure(Settings(models_dir=tmp_path, device="cpu"), 0.01)}
    assert set(found) == {"boots", "cgan", "cvae", "fitted", "mixed", "plain", "upscaler"}
    assert all(rate > 0 for rate in found.values())


def test_a_start_reads_what_calibration_wrote_and_the_environment_goes_before_it(tmp_path, monkeypatch):
    for name in ("DIGITS_WORKERS", "DIGITS_MAX_BATCH_ROWS"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "digits.env"
    write(file, workers=3, batch_rows=48)
    settings = Settings(_env_file=file)
    assert (settings.workers, settings.max_batch_rows) == (3, 48)
    monkeypatch.setenv("DIGITS_MAX_BATCH_ROWS", "16")
    assert Settings(_env_file=file).max_batch_rows == 16


def test_other_lines_of_the_settings_file_stay(tmp_path):
    file = tmp_path / "digits.env"
    file.write_text("# mine\nDIGITS_PORT=9000\nDIGITS_WORKERS=7\n")
    write(file, workers=2, batch_rows=16)
    assert file.read_text() == "# mine\nDIGITS_PORT=9000\nDIGITS_WORKERS=2\nDIGITS_MAX_BATCH_ROWS=16\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"DIGITS_WORKERS=many\n", 2, "DIGITS_WORKERS: "),
        (b"DIGITS_MODELS_DIR=absent\n", 1, "cannot calibrate: "),
        (b"DIGITS_SURPRISE=1\n", 2, "DIGITS_SURPRISE: "),
        (b"\xff\xfe", 2, "digits.env: "),
    ],
)
def test_a_calibration_that_cannot_be_says_why(tmp_path, content, status, said):
    (tmp_path / "digits.env").write_bytes(content)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIGITS_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "app", "calibrate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(said) if status == 2 else said in done.stderr
    assert "Traceback" not in done.stderr

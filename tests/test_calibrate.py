"""Calibration: what it measures, what it chooses, and what a start reads."""

import os
import subprocess
import sys
from collections.abc import Mapping

from app.calibrate import Measurement, best, measure, table, write
from app.settings import Settings
from tests.checkpoints.tiny import Autoencoder, write_vae
from tests.checkpoints.tiny import write as write_checkpoint
from tests.conftest import ROOT
from tests.tiny_models import write_checkpoints


def measured(**models: Mapping[tuple[int, int], float]) -> list[Measurement]:
    """Rates by model, workers and rows."""
    return [Measurement(name, *choice, rate) for name, rates in models.items() for choice, rate in rates.items()]


def test_the_fastest_choice_wins():
    assert best(measured(a={(1, 8): 100, (2, 8): 190, (1, 16): 110, (2, 16): 210})) == (2, 16)


def test_of_similar_choices_the_smallest_batch_wins_then_the_fewest_workers():
    assert best(measured(a={(1, 8): 98, (2, 8): 99, (1, 16): 97, (2, 16): 100})) == (1, 8)


def test_slow_models_count_as_much_as_fast_ones():
    fast = {(1, 8): 9000, (1, 16): 10000}
    slow = {(1, 8): 100, (1, 16): 60}
    assert best(measured(fast=fast, slow=slow)) == (1, 8)


def test_every_model_that_generates_is_measured_with_every_batch_size(tmp_path, monkeypatch):
    monkeypatch.setattr("app.calibrate.BATCH_ROWS", (4, 8))
    write_checkpoints(tmp_path)
    write_vae(tmp_path)
    write_checkpoint(tmp_path, "autoencoder", Autoencoder(), "embed", "decode", input_side=8)
    found = list(measure(Settings(models_dir=tmp_path, device="cpu"), seconds=0.001))
    generating = {"boots", "cgan", "cvae", "fitted", "mixed", "plain", "upscaler", "vae"}
    assert {(one.model, one.batch_rows) for one in found} == {(name, rows) for name in generating for rows in (4, 8)}
    assert all(one.rows_per_second > 0 for one in found)
    assert len(table(found).splitlines()) == 1 + len({(one.model, one.workers) for one in found})


def test_a_start_reads_the_saved_values_other_lines_stay_and_the_environment_overrides(tmp_path, monkeypatch):
    for name in ("DIGITS_WORKERS", "DIGITS_MAX_BATCH_ROWS"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "digits.env"
    file.write_text("# mine\nDIGITS_PORT=9000\nDIGITS_WORKERS=7\n")
    write(file, workers=3, batch_rows=48)
    assert file.read_text() == "# mine\nDIGITS_PORT=9000\nDIGITS_WORKERS=3\nDIGITS_MAX_BATCH_ROWS=48\n"
    assert list(tmp_path.iterdir()) == [file]
    monkeypatch.setenv("DIGITS_MAX_BATCH_ROWS", "16")
    settings = Settings(_env_file=file)
    assert (settings.workers, settings.max_batch_rows, settings.port) == (3, 16, 9000)


def test_a_calibration_without_checkpoints_says_why_and_writes_nothing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIGITS_")}
    environment |= {"PYTHONPATH": str(ROOT), "DIGITS_MODELS_DIR": "absent"}
    command = [sys.executable, "-m", "app", "calibrate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

"""The first steps of a process, and the metrics folders of processes that share a machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.server import environment
from app.server.environment import make_metrics_folder, remove_stale_metrics
from app.settings import Settings
from tests.conftest import ROOT

HELD = """
import sys
from pathlib import Path
from app.server.environment import make_metrics_folder

print(make_metrics_folder(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

STARTED = """
import os, sys
import app.__main__ as main

main.initialize_process()
print({"numpy", "torch"} & sys.modules.keys(), os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"])
"""


def test_the_number_of_threads_is_set_before_a_library_that_computes_is_imported():
    variables = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set() 1 1\n"


def test_without_a_folder_that_can_be_written_processes_do_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "SHARED_MEMORY", tmp_path / "missing")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(environment.NothingShared, match="DIGITS_PROCESSES"):
        environment.prepare_processes(Settings(processes=2, max_connections=1))


def test_a_folder_outlives_a_later_start_until_the_last_process_that_uses_it_is_gone(tmp_path):
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        (folder / "counter_1.db").write_bytes(b"counts")
        remove_stale_metrics(tmp_path)
        assert (folder / "counter_1.db").exists()
        process.kill()
    remove_stale_metrics(tmp_path)
    assert not folder.exists()


def test_only_folders_of_the_service_are_removed(tmp_path):
    kept = [tmp_path / "digits-of-somebody", tmp_path / "digits-metrics-file", make_metrics_folder(tmp_path)]
    kept[0].mkdir()
    kept[1].write_text("")
    (tmp_path / "digits-metrics-link").symlink_to(kept[0])
    remove_stale_metrics(tmp_path)
    assert all(path.exists() for path in kept)

"""What is freed goes back to the system when asked, and loading leaves no thread behind."""

import subprocess
import sys
from pathlib import Path
from threading import enumerate as threads

import pytest

from app.inference import allocator
from app.inference.runtime import Runtime
from app.loading import load_and_trim
from app.settings import Settings

MODELS = Path(__file__).parents[2] / "models"

# 64 MiB in blocks too small to be given back one by one, freed but for the last, which keeps all others in the heap.
FREE_AND_TRIM = """
from pathlib import Path
from app.inference.allocator import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

blocks = [bytes([1]) * 65536 for _ in range(1024)]
last = blocks.pop()
del blocks
before = resident()
trim()
print(before - resident())
"""


@pytest.mark.skipif(allocator._malloc_trim is None, reason="needs glibc")
def test_trimming_gives_back_what_was_freed():
    done = subprocess.run([sys.executable, "-c", FREE_AND_TRIM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50 * 2**20


def test_nothing_to_trim_is_no_error(monkeypatch):
    monkeypatch.setattr(allocator, "_malloc_trim", None)
    allocator.trim()


def test_the_thread_that_loads_ends_with_it():
    before = set(threads())
    models = load_and_trim(Settings(models_dir=MODELS, device="cpu"), Runtime("cpu"))
    assert models
    assert set(threads()) == before

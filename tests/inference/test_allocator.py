"""What is freed goes back to the system when asked, and loading leaves no thread behind."""

import os
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
from resource import getpagesize
from app.inference.allocator import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()

blocks = [bytes([1]) * 65536 for _ in range(1024)]
last = blocks.pop()
del blocks
before = resident()
trim()
print(before - resident())
"""
OTHER_ALLOCATORS = ("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES", "PYTHONMALLOC")


@pytest.mark.skipif(allocator.find_malloc_trim() is None, reason="needs glibc")
def test_trimming_gives_back_what_was_freed():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OTHER_ALLOCATORS)}
    command = [sys.executable, "-c", FREE_AND_TRIM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) > 50 * 2**20


def test_nothing_to_trim_is_no_error(monkeypatch):
    monkeypatch.setattr(allocator, "find_malloc_trim", lambda: None)
    allocator.trim()


def test_the_thread_that_loads_ends_with_it():
    before = set(threads())
    assert load_and_trim(Settings(models_dir=MODELS, device="cpu"), Runtime("cpu"))
    assert set(threads()) <= before

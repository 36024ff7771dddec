"""Data sets of tiny models, written by the command in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.__main__ import main
from app.dataset import shards
from tests.tiny_models import write_checkpoints

# The last shard of 25 images has fewer than the others.
IMAGES_PER_SHARD, COUNT = 10, 25

Command = Callable[..., int]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny checkpoint of every kind."""
    folder = tmp_path_factory.mktemp("models")
    write_checkpoints(folder)
    return folder


def run_command(monkeypatch: pytest.MonkeyPatch, **arguments: object) -> int:
    """The exit status of the command with these arguments, but for those that are None."""
    options = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    monkeypatch.setattr(sys, "argv", ["digits", "dataset", *options])
    return main()


@pytest.fixture
def command(models: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command with these arguments in place of the defaults; its exit status."""
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", IMAGES_PER_SHARD)
    shards.make_plan.cache_clear()  # of a test with another number
    monkeypatch.setenv("DIGITS_MODELS_DIR", str(models))

    def run(out: Path, **arguments: object) -> int:
        given = {"model": "cgan", "count": COUNT, "seed": 8, "format": "npz", "out": out, "processes": 1} | arguments
        return run_command(monkeypatch, **given)

    return run

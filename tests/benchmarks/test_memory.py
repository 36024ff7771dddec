"""The table of memory, and what a server inherits."""

import os

import app  # noqa: F401 # which sets one of MKL's
from benchmarks.memory import MODELS, Point, markdown
from benchmarks.places import SHIPPED
from benchmarks.servers import inherited


def test_megabytes_are_of_a_million_bytes():
    lines = markdown([Point("ready", 650_500_000.0, 649_400_000.0, 2**30)]).splitlines()
    assert lines[2] == "| ready | 650 | 649 | 1074 |"


def test_every_model_that_ships_has_its_load():
    assert set(MODELS) == {path.parent.name for path in SHIPPED.glob("*/manifest.json")}


def test_a_peer_does_not_get_what_the_service_sets_for_itself(monkeypatch):
    for name in ("DIGITS_WORKERS", "LD_PRELOAD", "MALLOC_ARENA_MAX"):
        monkeypatch.setenv(name, "1")
    assert os.environ["MKL_DISABLE_FAST_MM"]
    assert not [name for name in inherited() if name.startswith(("DIGITS_", "LD_PRELOAD", "MALLOC_", "MKL_"))]

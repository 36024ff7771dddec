"""The conditions of a measurement: the machine, the versions and the commit."""

import ctypes.util
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS, ROOT

LIBRARIES = ("torch", "numpy", "pillow", "fastapi", "starlette", "uvicorn", "pydantic")


def conditions(allocator: str = "none") -> dict[str, Any]:
    """What a reader needs to judge the figures, or to measure them again."""
    return {
        "processor": cpuinfo().get("model name", platform.machine()),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "allocator": allocator,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """Cores that processes may use."""
    return len(os.sched_getaffinity(0))


@cache
def cpuinfo() -> dict[str, str]:
    """Linux's description of the first core."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def has_bfloat16() -> bool:
    """Whether the service uses bfloat16 on this processor where a model has it."""
    features = f"{cpuinfo().get('flags', '')} {cpuinfo().get('Features', '')}".split()
    return not {"amx_bf16", "bf16"}.isdisjoint(features)


@cache
def tcmalloc() -> str | None:
    """The name of the shared library for the loader; None where it is not installed."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")


def commit() -> str:
    """The commit that is checked out, `-dirty` where tracked files other than results differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RESULTS.relative_to(ROOT)}")
    return f"{name}-dirty" if changed else name


def source(folder: Path) -> str:
    """The git tree of a folder of this project, `-dirty` where its files differ from it."""
    name = _git("rev-parse", "--short=12", f"HEAD:{folder.relative_to(ROOT)}") or "unknown"
    return f"{name}-dirty" if _git("status", "--porcelain", "--", str(folder)) else name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()

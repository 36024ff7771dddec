"""Facts of the machine that figures depend on, and what it must have installed."""

import ctypes.util
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.inference.machine import processor_model
from benchmarks.places import PEERS, RESULTS, ROOT

ALLOCATORS = ("tcmalloc", "none")
LIBRARIES = ("torch", "numpy", "pillow", "fastapi", "starlette", "uvicorn", "pydantic")


@cache
def tcmalloc() -> str | None:
    """The name that the loader knows it by; None where it is not installed."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")


def in_the_way() -> list[str]:
    """What would change what is measured, one line each."""
    if (ROOT / "digits.env").exists():
        return [
            "digits.env in the checkout would change what is measured, the service as it is by default: move it away"
        ]
    return []


def missing_programs() -> list[str]:
    """What has to be installed before anything can be measured, one line each."""
    lines = []
    if shutil.which("wrk") is None:
        lines.append("wrk, which makes the load, is not installed: apt-get install wrk")
    return lines


def advice() -> list[str]:
    """What could be installed to measure more, one line each."""
    lines = []
    if shutil.which("java") is None:
        lines.append("TorchServe is left out, it needs Java: apt-get install default-jre-headless")
    if tcmalloc() is None:
        lines.append("no server gets tcmalloc, it is not installed: apt-get install libtcmalloc-minimal4")
    return lines


def cores() -> int:
    """Cores that processes may use."""
    return len(os.sched_getaffinity(0))


def commit() -> str:
    """The commit that is checked out, `-dirty` where tracked files other than results differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    elsewhere = f":(exclude){RESULTS.relative_to(ROOT)}"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", elsewhere)
    return f"{name}-dirty" if changed else name


def source(folder: Path) -> str:
    """The git tree of a folder of this project, `-dirty` where its files differ from it."""
    name = _git("rev-parse", "--short=12", f"HEAD:{folder.relative_to(ROOT)}") or "unknown"
    return f"{name}-dirty" if _git("status", "--porcelain", "--", str(folder)) else name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def facts(allocator: str) -> dict[str, Any]:
    """What a reader needs to judge the figures, or to measure them again."""
    return {
        "processor": processor_model(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "peers": {path.parent.name: _pinned(path) for path in sorted(PEERS.glob("*/requirements.txt"))},
        "allocator": allocator,
        "commit": commit(),
        "date": now(),
    }


def _pinned(requirements: Path) -> list[str]:
    lines = requirements.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]

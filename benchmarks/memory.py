"""What the service holds in memory: once ready, and after each load, with glibc's allocator and every model shipped."""

import json
import re
import subprocess
import sys
from statistics import median
from typing import NamedTuple

from benchmarks.cells import Cell, Configuration
from benchmarks.load import apply_load
from benchmarks.machine import facts
from benchmarks.places import RESULTS, SHIPPED
from benchmarks.processes import ServerFailed, running, weigh
from benchmarks.servers import inherited

STARTS = 3
CALLERS = 64
# The first is that of the tables; from then on each load finds what all before it have left.
MODELS = ("gan", "vae", "gan-deep", "cgan", "cvae")
IMAGES = (1, 16)
TORCH_ALONE = "import torch; print(open('/proc/self/status').read())"


class Point(NamedTuple):
    """Resident memory in bytes after something, the median of all starts with the least and the greatest."""

    after: str
    median: float
    least: float
    greatest: float


def measure(seconds: int) -> list[Point]:
    """One series of loads, each for `seconds`, in each of STARTS processes. Raises ServerFailed and LoadFailed."""
    alone = [_torch_alone() for _ in range(STARTS)]
    series = [_one_start(seconds) for _ in range(STARTS)]
    seen = {"`import torch`, and nothing else": alone} | {after: [one[after] for one in series] for after in series[0]}
    return [Point(after, median(values), min(values), max(values)) for after, values in seen.items()]


def _one_start(seconds: int) -> dict[str, float]:
    """By what came before, the bytes that are resident."""
    seen: dict[str, float] = {}
    with running(Configuration("digits", "fast"), {"models_dir": SHIPPED}, "none") as port:
        seen[f"ready, with {len(MODELS)} models"] = weigh().rss_bytes
        for n in IMAGES:
            for model in MODELS:
                cell = Cell(operation="generate", model=model, n=n, callers=CALLERS)
                if problem := apply_load(port, "/generate", cell, seconds, first_seed=0).problem:
                    raise ServerFailed(f"{cell.title}: {problem}")
                seen[cell.title] = weigh().rss_bytes
    return seen


def _torch_alone() -> float:
    env = inherited()
    done = subprocess.run([sys.executable, "-c", TORCH_ALONE], check=False, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise ServerFailed(f"PyTorch cannot be imported:\n{done.stderr}")
    return 1024 * int(re.findall(r"^VmRSS:\s+(\d+) kB$", done.stdout, re.MULTILINE)[0])


def markdown(points: list[Point]) -> str:
    """A table; megabytes of 1,000,000 bytes."""
    lines = ["| resident memory, MB | median | least | greatest |", "| --- " * 4 + "|"]
    lines += [f"| {p.after} | {p.median / 1e6:.0f} | {p.least / 1e6:.0f} | {p.greatest / 1e6:.0f} |" for p in points]
    return "\n".join([*lines, "", f"Each load meets what all above it have left; {STARTS} starts."])


def write(points: list[Point]) -> None:
    """`memory.json` with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts("none"), "points": [point._asdict() for point in points]}
    (RESULTS / "memory.json").write_text(json.dumps(content, indent=1) + "\n")


def read() -> list[Point]:
    """What `write` kept."""
    content = json.loads((RESULTS / "memory.json").read_text())
    return [Point(**point) for point in content["points"]]

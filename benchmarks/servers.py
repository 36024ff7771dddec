"""The servers that are measured, what each can be tuned by, and how a process of each is told what to do."""

import json
import os
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.archives import NAMES, File, archive_path
from benchmarks.cells import Cell, Configuration
from benchmarks.machine import tcmalloc
from benchmarks.places import MODELS, PEERS, SCRATCH

Knobs = dict[str, Any]

OWN = "digits"


@dataclass(frozen=True)
class Server:
    """How to start one, how to see that it is ready, and where it answers."""

    name: str
    module: str
    ready: str
    generate: str = "/generate"
    reconstruct: str = "/reconstruct"
    grid: tuple[Knobs, ...] = ()
    more_ports: int = 0
    program: str | None = None

    @property
    def folder(self) -> Path:
        """What a peer consists of."""
        return PEERS / self.name

    def available(self) -> bool:
        """Whether the program it needs is installed."""
        return self.program is None or shutil.which(self.program) is not None

    def path(self, cell: Cell) -> str:
        """Where a request of the cell goes."""
        return self.generate if cell.operation == "generate" else self.reconstruct

    def knobs(self) -> Knobs:
        """The best of the last sweep; before there was one, the first of the grid."""
        tuned = self.folder / "tuned.json"
        if tuned.exists():
            best: Knobs = json.loads(tuned.read_text())["knobs"]
            return best
        return self.grid[0] if self.grid else {}


def combinations(**values: tuple[Any, ...]) -> tuple[Knobs, ...]:
    """Every combination of the values of each knob."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


SERVERS = {
    server.name: server
    for server in (
        Server(
            name=OWN,
            module="app",
            ready="/readyz",
            reconstruct="/reconstruct?normalize=false",
        ),
        Server(
            name="fastapi",
            module="benchmarks.peers.fastapi",
            ready="/ready",
            grid=combinations(workers=(1, 2, 3), threads=(1, 2)),
        ),
        Server(
            name="litserve",
            module="benchmarks.peers.litserve",
            ready="/health",
            grid=tuple(
                {"threads": threads, "workers": workers, "api_servers": api_servers, "fast_queue": fast_queue}
                | {"max_batch_size": requests, "batch_timeout": timeout}
                for threads, workers, api_servers, fast_queue, requests, timeout in (
                    (2, 1, 1, False, 16, 0.005),
                    (1, 1, 1, True, 64, 0.001),
                    (1, 2, 1, True, 16, 0.005),
                    (1, 2, 1, True, 32, 0.001),
                    (1, 2, 1, False, 32, 0.005),
                    (1, 1, 2, True, 32, 0.005),
                    (1, 2, 2, False, 32, 0.005),
                )
            ),
        ),
        Server(
            name="bentoml",
            module="benchmarks.peers.bentoml",
            ready="/readyz",
            grid=tuple(
                {"threads": 1, "workers": workers, "max_batch_size": requests, "max_latency_ms": latency}
                for workers, requests, latency in (
                    (1, 16, 60000),
                    (1, 64, 60000),
                    (2, 8, 60000),
                    (2, 16, 60000),
                    (2, 32, 60000),
                    (2, 64, 60000),
                    (2, 32, 5000),
                    (3, 32, 60000),
                )
            ),
        ),
        Server(
            name="ray",
            module="benchmarks.peers.ray",
            ready="/ready",
            grid=tuple(
                {"threads": threads, "replicas": replicas, "throughput_optimized": optimized}
                | {"max_ongoing_requests": 128, "max_batch_size": requests, "batch_wait_timeout_s": timeout}
                for threads, replicas, optimized, requests, timeout in (
                    (2, 1, False, 64, 0.01),
                    (1, 1, True, 64, 0.001),
                    (1, 1, True, 16, 0.0),
                    (1, 2, False, 32, 0.001),
                    (1, 2, True, 32, 0.001),
                    (1, 2, True, 16, 0.0),
                )
            ),
        ),
        Server(
            name="torchserve",
            module="benchmarks.peers.torchserve",
            ready="/ping",
            generate="/predictions/digits",
            reconstruct="/predictions/digits",
            more_ports=4,
            program="java",
            grid=tuple(
                {"threads": 1, "workers": workers, "netty_threads": netty}
                | {"batch_size": requests, "max_batch_delay": delay}
                for workers, netty, requests, delay in (
                    (1, 2, 16, 5),
                    (2, 2, 8, 1),
                    (2, 2, 16, 1),
                    (2, 2, 32, 5),
                    (2, 4, 16, 5),
                    (2, 4, 32, 1),
                    (3, 4, 16, 5),
                )
            ),
        ),
    )
}


def inherited() -> dict[str, str]:
    """The environment without what would make one server another: its settings, and those of allocators.

    `app`, imported here, sets one of MKL's for itself, which is not for peers.
    """
    left_out = ("DIGITS_", "LD_PRELOAD", "MKL_", "MALLOC_", "GLIBC_TUNABLES")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def environment(server: Server, file: File, knobs: Knobs, allocator: str, ports: list[int]) -> dict[str, str]:
    """What its process finds in its environment."""
    kept = inherited()
    if allocator == "tcmalloc":
        kept["LD_PRELOAD"] = str(tcmalloc())
    if server.name == "digits":
        own = {"port": ports[0], "models_dir": MODELS / file, "device": "cpu"} | knobs
        return kept | {f"DIGITS_{name.upper()}": str(value) for name, value in own.items()}
    scratch = SCRATCH / Configuration(server.name, file).name
    scratch.mkdir(parents=True, exist_ok=True)
    return kept | {
        "OMP_NUM_THREADS": str(knobs["threads"]),
        "CUDA_VISIBLE_DEVICES": "",
        "BENCH_PORT": str(ports[0]),
        "BENCH_PORTS": json.dumps(ports),
        "BENCH_KNOBS": json.dumps(knobs),
        "BENCH_ARCHIVES": json.dumps({name: str(archive_path(file, name)) for name in NAMES}),
        "BENCH_WORK": str(scratch),
    }

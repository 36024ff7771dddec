"""The servers that are compared: how each is started and configured, and where it answers."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.archives import NAMES, archive_path
from benchmarks.conditions import tcmalloc
from benchmarks.environments import python_of
from benchmarks.paths import MODELS, PEERS, ROOT, SCRATCH
from benchmarks.processes import ServerProcess, Service, clean_environment, free_ports
from benchmarks.workloads import Target, Workload

OWN = "digits"


@dataclass(frozen=True)
class Server:
    """A server. `more_ports`: ports it needs beside the one of the API; `program`: what has to be installed."""

    name: str
    ready: str
    generate: str = "/generate"
    reconstruct: str = "/reconstruct"
    more_ports: int = 0
    program: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of a peer."""
        return PEERS / self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """The folder of code that its figures depend on."""
        return ROOT / "app" if self.name == OWN else PEERS

    def available(self) -> bool:
        """Whether the program it needs is installed."""
        return self.program is None or shutil.which(self.program) is not None

    def path(self, workload: Workload) -> str:
        """The URL path for requests of a workload."""
        return self.generate if workload.operation == "generate" else self.reconstruct

    def knobs(self) -> dict[str, Any]:
        """The tuned settings of a peer; none for this project, which runs with its defaults."""
        if self.name == OWN:
            return {}
        knobs: dict[str, Any] = json.loads((self.folder / "tuned.json").read_text())["knobs"]
        return knobs


PREDICTIONS = "/predictions/digits"
SERVERS = {
    server.name: server
    for server in (
        Server(OWN, "/readyz", reconstruct="/reconstruct?normalize=false"),
        Server("fastapi", "/ready"),
        Server("fastapi-batched", "/ready"),
        Server("litserve", "/health"),
        Server("bentoml", "/readyz"),
        Server("ray", "/ready"),
        Server("torchserve", "/ping", PREDICTIONS, PREDICTIONS, more_ports=4, program="java"),
        Server("mosec", "/"),
    )
}


def process_of(target: Target, allocator: str) -> ServerProcess:
    """The process of a server, not yet started."""
    server, log = SERVERS[target.server], f"{target.server}-{target.file}"
    preload = {"LD_PRELOAD": str(tcmalloc())} if allocator == "tcmalloc" else {}
    if server.name == OWN:
        return Service(MODELS / target.file, preload, log=log)
    ports = free_ports(1 + server.more_ports)
    command = [str(python_of(server.folder)), "-m", f"benchmarks.peers.{server.folder.name}"]
    return ServerProcess(command, peer_environment(server, target, ports) | preload, ports, server.ready, log)


def peer_environment(server: Server, target: Target, ports: list[int]) -> dict[str, str]:
    """The environment variables that `peers/rows.py` and the peers read."""
    scratch = SCRATCH / f"{target.server}-{target.file}"
    scratch.mkdir(parents=True, exist_ok=True)
    return clean_environment() | {
        "OMP_NUM_THREADS": str(server.knobs()["threads"]),
        "CUDA_VISIBLE_DEVICES": "",
        "BENCH_PORT": str(ports[0]),
        "BENCH_PORTS": json.dumps(ports),
        "BENCH_KNOBS": json.dumps(server.knobs()),
        "BENCH_ARCHIVES": json.dumps({name: str(archive_path(target.file, name)) for name in NAMES}),
        "BENCH_WORK": str(scratch),
    }

"""The workloads of the comparison: an operation, a model, images a request, and the number of callers."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from benchmarks.archives import FILES, File

Form = Literal["short", "full"]
Operation = Literal["generate", "reconstruct"]

CALLERS = (1, 8, 64)


class Workload(BaseModel):
    """One kind of request, sent by a number of callers who each ask again when they are answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation
    model: str
    n: int
    callers: int

    @property
    def request(self) -> str:
        """The request, for people."""
        images = f", {self.n} image{'s' if self.n > 1 else ''} a request" if self.operation == "generate" else ""
        return f"{self.operation} {self.model}{images}"

    @property
    def title(self) -> str:
        """The request and the number of callers, for people."""
        return f"{self.request}, {self.callers} caller{'s' if self.callers > 1 else ''}"


class Target(NamedTuple):
    """A server with an archive file."""

    server: str
    file: File


GENERATE_ONE = Workload(operation="generate", model="gan", n=1, callers=64)

REQUESTS: tuple[tuple[Operation, str, int], ...] = (
    ("generate", "gan", 1),
    ("generate", "gan", 16),
    ("generate", "vae", 1),
    ("reconstruct", "vae", 1),
)
EVERY_WORKLOAD = [
    Workload(operation=operation, model=model, n=n, callers=callers)
    for operation, model, n in REQUESTS
    for callers in CALLERS
]
# One image for 1 and 64 callers, 16 for 64.
SHORT_WORKLOADS = [
    Workload(operation="generate", model=model, n=n, callers=callers)
    for model, n, callers in (("gan", 1, 1), ("gan", 1, 64), ("gan", 16, 64), ("vae", 1, 64))
]


def plan(form: Form, servers: Sequence[str]) -> list[tuple[Target, list[Workload]]]:
    """The measurements of one round, in order. The short form serves only the archives that ship."""
    files, workloads = (FILES, EVERY_WORKLOAD) if form == "full" else (("fast",), SHORT_WORKLOADS)
    return [(Target(server, file), list(workloads)) for file in files for server in servers]

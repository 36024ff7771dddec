"""What is measured: operations, callers, servers and files. Knows not how."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from benchmarks.archives import FILES, File

Form = Literal["short", "full"]

CALLERS = (1, 8, 64)


class Cell(BaseModel):
    """One kind of request, asked for by so many callers at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["generate", "reconstruct"]
    model: str
    n: int
    callers: int

    @property
    def name(self) -> str:
        """Short, for files."""
        return f"{self.operation}-{self.model}-n{self.n}-c{self.callers}"

    @property
    def kind(self) -> str:
        """What is asked for, for people."""
        images = f", {self.n} image{'s' if self.n > 1 else ''} a request" if self.operation == "generate" else ""
        return f"{self.operation} {self.model}{images}"

    @property
    def title(self) -> str:
        """The kind, and by how many it is asked for."""
        return f"{self.kind}, {self.callers} caller{'s' if self.callers > 1 else ''}"


class Configuration(NamedTuple):
    """A server with a file."""

    server: str
    file: File

    @property
    def name(self) -> str:
        """Short, for files."""
        return f"{self.server}-{self.file}"


Plan = list[tuple[Configuration, list[Cell]]]

GENERATE_ONE = Cell(operation="generate", model="gan", n=1, callers=64)
GENERATE_ALONE = Cell(operation="generate", model="gan", n=1, callers=1)
GENERATE_SIXTEEN = Cell(operation="generate", model="gan", n=16, callers=64)
GENERATE_VAE = Cell(operation="generate", model="vae", n=1, callers=64)


def every_cell() -> list[Cell]:
    """The cells of the full form."""
    kinds: tuple[tuple[Literal["generate", "reconstruct"], str, int], ...] = (
        ("generate", "gan", 1),
        ("generate", "gan", 16),
        ("generate", "vae", 1),
        ("reconstruct", "vae", 1),
    )
    return [
        Cell(operation=operation, model=model, n=n, callers=callers)
        for operation, model, n in kinds
        for callers in CALLERS
    ]


def plan(form: Form, servers: Sequence[str]) -> Plan:
    """What one round measures, in order."""
    return [
        (Configuration(server, file), every_cell() if form == "full" else short_cells(server, file))
        for file in FILES
        for server in servers
    ]


def short_cells(server: str, file: File) -> list[Cell]:
    """One image of the GAN for every configuration, and a little more where it tells most."""
    cells = [GENERATE_ONE]
    if file == "plain":
        cells.append(GENERATE_VAE)
    if server == "digits":
        cells += [GENERATE_SIXTEEN, GENERATE_ALONE]
    return cells

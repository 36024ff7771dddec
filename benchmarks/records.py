"""One measured cell of one round as one JSON file, so that a run that was cut off goes on where it was."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.archives import File
from benchmarks.cells import Cell, Configuration, Form
from benchmarks.load import Load
from benchmarks.places import RECORDS


class Conditions(BaseModel):
    """What must be the same for a record to stand for a measurement asked for now.

    source: the git tree of what serves, so that a change of documents leaves records valid; empty where it was
    not kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: int
    allocator: str
    knobs: dict[str, Any]
    digests: dict[str, str]
    source: str = ""


class Record(BaseModel):
    """One cell of one round; `problem` says why its figures do not count.

    Memory and CPU seconds are of all processes of the server, `others_cpu_s` of everything else on the machine but
    the load: the noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    server: str
    file: File
    cell: Cell
    conditions: Conditions
    commit: str
    date: str
    load: Load | None = None
    problem: str | None = None
    processes: int = 0
    rss_bytes: int = 0
    pss_bytes: int = 0
    cpu_s: float = 0.0
    others_cpu_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        """Zero where nothing was measured."""
        return self.load.requests * self.cell.n / self.load.duration_s if self.load else 0.0


class Store:
    """The records of a form, on disk."""

    def __init__(self, form: Form, root: Path = RECORDS) -> None:
        self.folder = root / form

    def clear(self) -> None:
        """Start over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, record: Record) -> None:
        """Keep a record; one that is cut off while it is written does not count."""
        path = self._path(record.round, Configuration(record.server, record.file), record.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(record.model_dump_json(indent=2))
        partial.replace(path)

    def read(self, number: int, configuration: Configuration, cell: Cell) -> Record | None:
        """None where there is none, or none that can be read."""
        try:
            return Record.model_validate_json(self._path(number, configuration, cell).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def missing(
        self, number: int, configuration: Configuration, cells: list[Cell], conditions: Conditions
    ) -> list[Cell]:
        """Cells of a round that were not measured under these conditions, or whose measurement failed."""
        return [cell for cell in cells if not _counts(self.read(number, configuration, cell), conditions)]

    def _path(self, number: int, configuration: Configuration, cell: Cell) -> Path:
        return self.folder / f"round-{number}" / configuration.name / f"{cell.name}.json"


def _counts(record: Record | None, conditions: Conditions) -> bool:
    return record is not None and record.problem is None and record.conditions == conditions

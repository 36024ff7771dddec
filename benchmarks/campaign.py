"""Rounds over all servers, each started once a round for all of its cells."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.archives import digests
from benchmarks.cells import Cell, Configuration, Plan
from benchmarks.load import LoadFailed, apply_load
from benchmarks.machine import commit, now, source
from benchmarks.places import APP, PEERS
from benchmarks.probe import ProbeFailed, probe
from benchmarks.processes import ServerFailed, Weight, running, weigh
from benchmarks.records import Conditions, Record, Store
from benchmarks.servers import OWN, SERVERS

WARM_UP_S = 3
SEEDS_A_CELL = 10_000_000


@dataclass(frozen=True)
class Campaign:
    """How to measure a plan."""

    rounds: int
    seconds: int
    allocator: str

    def run(self, plan: Plan, store: Store) -> list[Record]:
        """Measure what is missing; every record of the plan. Rounds interleave servers: noise hits all alike."""
        records = []
        for number in range(1, self.rounds + 1):
            for configuration, cells in plan:
                conditions = self.conditions(configuration)
                missing = store.missing(number, configuration, cells, conditions)
                if missing:
                    self._measure(number, configuration, missing, store)
                found = (store.read(number, configuration, cell) for cell in cells)
                records += [record for record in found if record is not None]
        return records

    def conditions(self, configuration: Configuration) -> Conditions:
        """What a record has to agree with."""
        knobs = SERVERS[configuration.server].knobs()
        return Conditions(
            seconds=self.seconds,
            allocator=self.allocator,
            knobs=knobs,
            digests=digests(configuration.file),
            source=source(APP if configuration.server == OWN else PEERS),
        )

    def _measure(self, number: int, configuration: Configuration, cells: list[Cell], store: Store) -> None:
        conditions = self.conditions(configuration)
        blank = Record(
            round=number,
            server=configuration.server,
            file=configuration.file,
            cell=cells[0],
            conditions=conditions,
            commit=commit(),
            date=now(),
        )
        try:
            with running(configuration, conditions.knobs, self.allocator) as port:
                for cell in cells:
                    update = {"cell": cell, "date": now()} | measure_cell(
                        port, configuration.server, cell, self.seconds
                    )
                    record = blank.model_copy(update=update)
                    store.write(record)
                    tell(record)
        except ServerFailed as error:
            for cell in store.missing(number, configuration, cells, conditions):
                record = blank.model_copy(update={"cell": cell, "problem": str(error)})
                store.write(record)
                tell(record)


def measure_cell(port: int, server: str, cell: Cell, seconds: int) -> dict[str, Any]:
    """Probe, warm up, measure: the fields of a record."""
    path = SERVERS[server].path(cell)
    try:
        probe(port, path, cell)
        apply_load(port, path, cell, WARM_UP_S, first_seed=SEEDS_A_CELL)
        before = weigh()
        load = apply_load(port, path, cell, seconds, first_seed=2 * SEEDS_A_CELL)
        after = weigh()
    except (ProbeFailed, LoadFailed) as error:
        return {"problem": str(error)}
    return {"load": load, "problem": load.problem, **_used(before, after)}


def _used(before: Weight, after: Weight) -> dict[str, Any]:
    spent = {name: round(getattr(after, name) - getattr(before, name), 2) for name in ("cpu_s", "others_cpu_s")}
    return asdict(after) | spent


def tell(record: Record) -> None:
    """A line a cell, as it is measured."""
    name = Configuration(record.server, record.file).name
    if record.load is None or record.problem:
        figures = f"FAILED: {record.problem}"
    else:
        latency = f"p50 {record.load.p50_ms:.1f} ms, p99 {record.load.p99_ms:.1f} ms"
        figures = f"{record.images_per_s:,.0f} images/s, {latency}, {record.pss_bytes / 2**20:,.0f} MiB"
    print(f"round {record.round}  {name:18}  {record.cell.name:22}  {figures}", flush=True)

"""The comparison with other servers: rounds over all of them, kept as they are measured, then summarised."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.answer_check import AnswerWrong, check_answers
from benchmarks.archives import File, digests
from benchmarks.conditions import source
from benchmarks.paths import WORK
from benchmarks.processes import ServerFailed, ServerProcess, proportional_memory
from benchmarks.servers import SERVERS, process_of
from benchmarks.workloads import Form, Target, Workload, plan
from benchmarks.wrk import WrkFailed, apply_load

WARM_UP_S = 2
SEEDS_A_LOAD = 10_000_000


class Measurement(BaseModel):
    """One workload on one server in one round. With `error`, its figures do not count.

    conditions: seconds, allocator, knobs of the server, digests of the models, and the git tree of the server's source.
    """

    model_config = ConfigDict(frozen=True)

    round: int
    server: str
    file: File
    workload: Workload
    conditions: dict[str, Any]
    images_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    memory_mib: float = 0.0
    error: str | None = None

    def stands_for(self, other: "Measurement") -> bool:
        """Whether it is the same measurement under the same conditions, and succeeded."""
        names = ("round", "server", "file", "workload", "conditions")
        return self.error is None and all(getattr(self, name) == getattr(other, name) for name in names)


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    least: float
    greatest: float


class Outcome(BaseModel):
    """One workload on one server over the rounds; only `error` where a round failed. Memory is PSS."""

    server: str
    file: File
    workload: Workload
    error: str | None = None
    images_per_s: Spread | None = None
    p50_ms: Spread | None = None
    p99_ms: Spread | None = None
    memory_mib: Spread | None = None


class Log:
    """Finished measurements, one a line, so that an interrupted comparison continues."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, measurement: Measurement) -> None:
        """Append a measurement."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"\n{measurement.model_dump_json()}")  # a line that was cut off must not spoil the next one

    def find(self, wanted: Measurement) -> Measurement | None:
        """The last measurement that stands for the wanted one; lines that were cut off do not count."""
        found = None
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            with suppress(ValidationError):
                measurement = Measurement.model_validate_json(line)
                found = measurement if measurement.stands_for(wanted) else found
        return found


def compare(
    form: Form, servers: list[str], rounds: int, seconds: int, allocator: str, *, fresh: bool
) -> list[Measurement]:
    """Measure what is missing; all measurements. Each round visits every server, so that noise affects all alike."""
    path = WORK / f"measurements-{form}.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    log = Log(path)
    found = []
    for number in range(1, rounds + 1):
        for target, workloads in plan(form, servers):
            server = SERVERS[target.server]
            conditions = {"seconds": seconds, "allocator": allocator, "knobs": server.knobs()}
            conditions |= {"digests": digests(), "source": source(server.source)}
            wanted = [
                Measurement(round=number, server=server.name, file=target.file, workload=each, conditions=conditions)
                for each in workloads
            ]
            kept = [measurement for each in wanted if (measurement := log.find(each))]
            missing = [each for each in wanted if not any(one.stands_for(each) for one in kept)]
            found += kept
            for measurement in measure(target, missing) if missing else []:
                log.add(measurement)
                found.append(measurement)
    return found


def measure(target: Target, wanted: list[Measurement]) -> Iterable[Measurement]:
    """Start a server and apply the workloads one after the other, each printed as it ends."""
    measured = 0
    try:
        with process_of(target, wanted[0].conditions["allocator"]) as server:
            for each in wanted:
                measurement = each.model_copy(update=apply_workload(server, each))
                show(measurement)
                measured += 1
                yield measurement
    except ServerFailed as error:
        for each in wanted[measured:]:
            measurement = each.model_copy(update={"error": str(error)})
            show(measurement)
            yield measurement


def apply_workload(server: ServerProcess, wanted: Measurement) -> dict[str, Any]:
    """Check the answers, warm up, measure: the figures, or the error."""
    workload, path = wanted.workload, SERVERS[wanted.server].path(wanted.workload)
    try:
        check_answers(server, path, workload)
        apply_load(server.port, path, workload, WARM_UP_S, first_seed=SEEDS_A_LOAD)
        load = apply_load(server.port, path, workload, wanted.conditions["seconds"], first_seed=2 * SEEDS_A_LOAD)
    except (AnswerWrong, WrkFailed) as error:
        return {"error": str(error)}
    return {
        "images_per_s": load.requests * workload.n / load.seconds,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "memory_mib": proportional_memory() / 2**20,
        "error": f"{load.errors} errors in {load.requests} requests" if load.errors or not load.requests else None,
    }


def show(measurement: Measurement) -> None:
    """Print one line."""
    figures = (
        f"{measurement.images_per_s:,.0f} images/s, p50 {measurement.p50_ms:.1f} ms, p99 {measurement.p99_ms:.1f} ms"
    )
    name = f"round {measurement.round}, {measurement.server}, {measurement.file}, {measurement.workload.title}"
    print(f"{name}: {f'FAILED: {measurement.error}' if measurement.error else figures}", flush=True)


def summarise(measurements: list[Measurement]) -> list[Outcome]:
    """Medians and ranges over the rounds, in the order of the measurements."""
    groups: dict[tuple[Workload, str, File], list[Measurement]] = {}
    for each in measurements:
        groups.setdefault((each.workload, each.server, each.file), []).append(each)
    outcomes = []
    for (workload, server, file), group in groups.items():
        outcome = Outcome(server=server, file=file, workload=workload)
        outcome.error = next((each.error for each in group if each.error), None)
        if outcome.error is None:
            for figure in ("images_per_s", "p50_ms", "p99_ms", "memory_mib"):
                values = [getattr(each, figure) for each in group]
                setattr(outcome, figure, Spread(median(values), min(values), max(values)))
        outcomes.append(outcome)
    return outcomes

"""Records to medians, spreads and ratios. Pure."""

from collections.abc import Iterable
from statistics import median

from pydantic import BaseModel, ConfigDict

from benchmarks.archives import FILES, File
from benchmarks.cells import Cell
from benchmarks.records import Record
from benchmarks.servers import OWN


class Spread(BaseModel):
    """The median of the rounds between their least and their greatest."""

    model_config = ConfigDict(frozen=True)

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """At least one value."""
        listed = sorted(values)
        return cls(median=median(listed), least=listed[0], greatest=listed[-1])


class Outcome(BaseModel):
    """What one server with one file did in one cell over the rounds; nothing but `problem` where a round failed."""

    model_config = ConfigDict(frozen=True)

    server: str
    file: File
    cell: Cell
    rounds: int
    problem: str | None = None
    images_per_s: Spread | None = None
    p50_ms: Spread | None = None
    p99_ms: Spread | None = None
    pss_mib: Spread | None = None
    cpu_ms_an_image: Spread | None = None


class Ratio(BaseModel):
    """Images a second of this project over a peer's: of the medians, and the least and greatest of the rounds'."""

    model_config = ConfigDict(frozen=True)

    cell: Cell
    peer: str
    own_file: File
    peer_file: File
    value: float
    least: float
    greatest: float


def outcomes(records: list[Record]) -> list[Outcome]:
    """One for each cell, server and file, in the order of the records."""
    return [_outcome(group) for group in _grouped(records).values()]


def ratios(records: list[Record]) -> list[Ratio]:
    """Of this project over each peer with the same file, then with its fast file over each peer's plain one."""
    groups = {key: group for key, group in _grouped(records).items() if not any(record.problem for record in group)}
    found = []
    for cell, server, peer_file in groups:
        if server == OWN:
            continue
        pairs: list[tuple[File, File]] = [(peer_file, peer_file)]
        if peer_file == FILES[0]:
            pairs.append((FILES[1], FILES[0]))
        for own_file, other in pairs:
            own = groups.get((cell, OWN, own_file))
            if own is not None:
                found.append(_ratio(own, groups[cell, server, other]))
    return found


def _grouped(records: list[Record]) -> dict[tuple[Cell, str, File], list[Record]]:
    groups: dict[tuple[Cell, str, File], list[Record]] = {}
    for record in records:
        groups.setdefault((record.cell, record.server, record.file), []).append(record)
    return groups


def _outcome(group: list[Record]) -> Outcome:
    first = group[0]
    made = Outcome(server=first.server, file=first.file, cell=first.cell, rounds=len(group))
    problem = next((record.problem for record in group if record.problem), None)
    loads = [record.load for record in group if record.load is not None]
    if problem or len(loads) < len(group):
        return made.model_copy(update={"problem": problem or "not measured"})
    images = [record.images_per_s * load.duration_s for record, load in zip(group, loads, strict=True)]
    return made.model_copy(
        update={
            "images_per_s": Spread.of(record.images_per_s for record in group),
            "p50_ms": Spread.of(load.p50_ms for load in loads),
            "p99_ms": Spread.of(load.p99_ms for load in loads),
            "pss_mib": Spread.of(record.pss_bytes / 2**20 for record in group),
            "cpu_ms_an_image": Spread.of(
                1000 * record.cpu_s / count for record, count in zip(group, images, strict=True)
            ),
        }
    )


def _ratio(own: list[Record], peer: list[Record]) -> Ratio:
    rates = [{record.round: record.images_per_s for record in group} for group in (own, peer)]
    rounds = [rates[0][number] / rates[1][number] for number in rates[0] if number in rates[1]]
    value = median(rates[0].values()) / median(rates[1].values())
    return Ratio(
        cell=own[0].cell,
        peer=peer[0].server,
        own_file=own[0].file,
        peer_file=peer[0].file,
        value=value,
        least=min(rounds, default=value),
        greatest=max(rounds, default=value),
    )

"""The fault matrix: every fault at every load, and what callers saw of it. Knows no particular fault."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks import harm
from benchmarks.harm import Fault
from benchmarks.machine import facts
from benchmarks.openloop import Load, percentile
from benchmarks.places import LOGS, RESULTS
from benchmarks.soak import capacity, generate_one
from benchmarks.supervised import Supervised

MODEL = "gan"
LOADS = {"idle": 0.0, "capacity": 1.0, "twice capacity": 2.0}
# When nothing is asked, nothing can be seen: so many a second are asked also when idle.
IDLE_PER_S, MARKED_PER_S = 20.0, 10.0
BEFORE_S = 1.5
KNOWN = json.dumps({"model": MODEL, "n": 4, "seed": 8}).encode()
# The answers that every promise allows: served, refused, and late.
PROMISED = {"200", "503", "504"}
# The exit status of a service whose worker has ended.
WORKER_LOST = 1
ENDS_WITHOUT_ANSWER = {"lost", "cut", "unreachable", "unanswered"}


class Outcome(BaseModel):
    """One fault at one load. Seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    load: str
    per_s: float
    counts: dict[str, int]
    marked: dict[str, int]
    surplus_bytes: int
    exits: list[int]
    exit_after_s: float | None
    silence_s: float
    p99_ms: float | None
    served_at_the_end: bool
    same_bytes: bool
    clock_moved: bool
    promises: list[str]  # those that were broken

    @property
    def kept(self) -> bool:
        """Whether all that is promised was seen."""
        return not self.promises


async def measure(only: str | None = None, loads: tuple[str, ...] = tuple(LOADS)) -> list[Outcome]:
    """Every fault at every load. Raises ServerFailed where the service does not even start."""
    harm.prepare()
    async with Supervised(harm.MODELS, restart=False, log=LOGS / "faults-capacity.log") as service:
        most = await capacity(service.port, MODEL, 3)
    print(f"capacity: {most:.0f} images/s", flush=True)
    found = []
    for fault in harm.faults():
        if only is not None and only not in fault.name:
            continue
        if fault.missing:
            print(f"{fault.name}: left out, {fault.missing}", flush=True)
            continue
        for load in loads:
            found.append(await endure(fault, load, max(LOADS[load] * most, IDLE_PER_S)))
            print(line(found[-1]), flush=True)
    return found


async def endure(fault: Fault, load: str, per_s: float) -> Outcome:
    """One fault at one load, from a fresh start to a last look."""
    harm.prepare()
    log = LOGS / f"faults-{fault.name.replace(' ', '-').replace(',', '')}.log"
    service = Supervised(harm.MODELS, dict(fault.environment), fault.command, log=log)
    async with service:
        width = json.loads(service.get("/models")[1])["models"][0]["latent_dim"]
        before = service.get("/generate", KNOWN)[1]
        main = Load(service.port, generate_one(MODEL))
        beside = fault.beside or (lambda _: b"")
        marked = Load(service.port, lambda _: beside(width))
        asking = asyncio.create_task(main.at_rate(per_s, BEFORE_S + fault.seconds))
        await asyncio.sleep(BEFORE_S)
        struck = monotonic()
        await asyncio.to_thread(fault.do, service)
        if fault.beside is not None:
            await marked.at_rate(MARKED_PER_S, fault.after_s)
        else:
            await asyncio.sleep(fault.after_s)
        moved = await asyncio.to_thread(clock_moved, service)
        await asyncio.to_thread(fault.undo, service)
        await asking
        over = monotonic()
        await asyncio.gather(main.finish(), marked.finish())
        served, same = False, False
        if service.process.returncode is None:
            await service.ready()
            status, after = service.get("/generate", KNOWN)
            served, same = status == 200, after == before
        exits = [each.status for each in service.exits]
        ended = next((each.at - struck for each in service.exits), None)
    record = main.record
    late = record.latencies_ms()
    outcome = Outcome(
        fault=fault.name,
        load=load,
        per_s=per_s,
        counts=record.counts(),
        marked=marked.record.counts(),
        surplus_bytes=record.surplus,
        exits=exits,
        exit_after_s=ended,
        silence_s=record.silence_s(struck, over),
        p99_ms=percentile(late, 0.99) if late else None,
        served_at_the_end=served,
        same_bytes=same,
        clock_moved=moved,
        promises=[],
    )
    return outcome.model_copy(update={"promises": list(broken(fault, outcome))})


def clock_moved(service: Supervised) -> bool:
    """Whether the service's clock is hours from this one's; False where it says nothing."""
    if (said := service.date()) is None:
        return False
    return abs((said - datetime.now(UTC)).total_seconds()) > 3600


def broken(fault: Fault, seen: Outcome) -> Iterator[str]:
    """What was promised and not seen."""
    asked = {name for name in seen.counts if name != "unsent"}
    crashed = fault.may_crash and len(seen.exits) == 1 and (seen.exits[0] < 0 or seen.exits[0] == WORKER_LOST)
    allowed = PROMISED | (ENDS_WITHOUT_ANSWER if fault.loses or fault.may_crash else set())
    if fault.ends is not None:
        allowed |= {"unreachable"}  # between the end of one process and the start of the next
    if unexpected := asked - allowed:
        yield f"requests came to {', '.join(sorted(unexpected))}"
    if "200" not in seen.counts:
        yield "nobody was served"
    if seen.surplus_bytes:
        yield "more than one answer to a request"
    if not crashed and seen.exits != ([] if fault.ends is None else [fault.ends]):
        yield f"the process ended with {seen.exits or 'nothing'}"
    came_to = fault.beside_came_to
    may_come_to = {*came_to, *(ENDS_WITHOUT_ANSWER & allowed)}
    missed = bool(came_to) and came_to[0] not in seen.marked and not fault.may_crash
    if came_to and not crashed and (missed or not set(seen.marked) <= may_come_to):
        yield f"marked requests came to {seen.marked}"
    if seen.clock_moved != fault.moves_clock:
        yield "the clock did not move" if fault.moves_clock else "the clock moved"
    if fault.ends != 0:
        if not seen.served_at_the_end:
            yield "nobody was served at the end"
        elif seen.same_bytes == fault.other:
            yield "the bytes of a seed changed" if not fault.other else "the old checkpoint served on"


def line(seen: Outcome) -> str:
    """A line for a person who waits."""
    counts = ", ".join(f"{name} {count}" for name, count in (seen.counts | seen_marked(seen)).items())
    verdict = "as promised" if seen.kept else f"BROKEN: {'; '.join(seen.promises)}"
    return f"{seen.fault} / {seen.load} ({seen.per_s:.0f}/s): {counts}; silent {seen.silence_s:.1f} s; {verdict}"


def seen_marked(seen: Outcome) -> dict[str, int]:
    """Counts of the marked requests, named so."""
    return {f"marked {name}": count for name, count in seen.marked.items()}


def markdown(found: list[Outcome]) -> str:
    """A table: a line a fault, a column a load."""
    loads = list(dict.fromkeys(seen.load for seen in found))
    lines = ["| fault | " + " | ".join(loads) + " | as promised |", "| --- " * (len(loads) + 2) + "|"]
    for fault in dict.fromkeys(seen.fault for seen in found):
        row = {seen.load: seen for seen in found if seen.fault == fault}
        cells = [cell(row[load]) if load in row else "" for load in loads]
        failed = "; ".join(dict.fromkeys(promise for seen in row.values() for promise in seen.promises))
        lines.append(f"| {fault} | {' | '.join(cells)} | {failed or 'yes'} |")
    return "\n".join(lines)


def cell(seen: Outcome) -> str:
    """What callers saw, and how the process ended."""
    parts = [f"{name}: {count:,}" for name, count in (seen.counts | seen_marked(seen)).items()]
    parts.append(f"longest silence {seen.silence_s:.1f} s")
    if seen.exit_after_s is not None:
        parts.append(f"exit {seen.exits[0]} after {seen.exit_after_s:.1f} s")
    return ", ".join(parts)


def write(found: list[Outcome], path: Path = RESULTS / "faults.json") -> None:
    """Keep the outcomes with the facts of the machine."""
    content: dict[str, Any] = {"machine": facts("none"), "outcomes": [seen.model_dump(mode="json") for seen in found]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path = RESULTS / "faults.json") -> list[Outcome]:
    """What `write` kept."""
    return [Outcome.model_validate(each) for each in json.loads(path.read_text())["outcomes"]]

"""Fault injection: every fault at every load, and what callers saw of it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from time import monotonic

from pydantic import BaseModel, ConfigDict

from benchmarks import injections
from benchmarks.injections import Fault
from benchmarks.load_generator import CUT, LOST, UNANSWERED, UNREACHABLE, UNSENT, Load
from benchmarks.processes import Service
from benchmarks.soak import capacity, generate_one

MODEL = "gan"
LOADS = {"idle": 0.0, "capacity": 1.0, "twice capacity": 2.0}
# The idle service gets some requests too: without any, no failure could be seen.
IDLE_PER_S, MARKED_PER_S = 20.0, 10.0
BEFORE_S = 1.5
REFERENCE = json.dumps({"model": MODEL, "n": 4, "seed": 8}).encode()
# The answers that every promise allows: served, refused, and too late.
PROMISED = {"200", "503", "504"}
NO_ANSWER = {LOST, CUT, UNREACHABLE, UNANSWERED}
WORKER_LOST = 1  # the exit status of a service of one process whose worker has ended


class Outcome(BaseModel):
    """One fault at one load. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    load: str
    per_s: float
    counts: dict[str, int]
    marked: dict[str, int] = {}
    surplus_bytes: int = 0
    exits: list[int] = []
    exit_after_s: float | None = None
    silence_s: float
    served_at_the_end: bool
    same_bytes: bool
    clock_moved: bool = False
    broken: list[str] = []  # promises

    def requests(self) -> str:
        """Requests by result."""
        marked = [f"marked {result}: {count:,}" for result, count in self.marked.items()]
        return ", ".join([*(f"{result}: {count:,}" for result, count in self.counts.items()), *marked])


async def measure(only: str | None = None) -> list[Outcome]:
    """Every fault at every load. Raises ServerFailed where the service does not start at all."""
    injections.prepare()
    with Service(injections.MODELS, log="faults-capacity") as service:
        most = await capacity(service.port, MODEL, 3)
    print(f"capacity: {most:.0f} images/s", flush=True)
    found = []
    for fault in injections.faults():
        if only is not None and only not in fault.name:
            continue
        if fault.missing:
            print(f"{fault.name}: left out, {fault.missing}", flush=True)
            continue
        for load, share in LOADS.items():
            outcome = await inject(fault, load, max(share * most, IDLE_PER_S))
            verdict = f"BROKEN: {'; '.join(outcome.broken)}" if outcome.broken else "as promised"
            silence = f"longest silence {outcome.silence_s:.1f} s"
            print(
                f"{fault.name}, {load} ({outcome.per_s:.0f}/s): {outcome.requests()}; {silence}; {verdict}", flush=True
            )
            found.append(outcome)
    return found


async def inject(fault: Fault, load: str, per_s: float) -> Outcome:
    """One fault at one load, from a fresh start to a request at the end."""
    injections.prepare()
    log = f"faults-{fault.name.replace(' ', '-').replace(',', '')}"
    with Service(injections.MODELS, fault.environment, fault.command, log=log, restart=True) as service:
        width = json.loads(service.ask("/models")[2])["models"][0]["latent_dim"]
        before = service.ask("/generate", REFERENCE)[2]
        main = Load(service.port, generate_one(MODEL))
        build = fault.marked or (lambda _: b"")
        marked = Load(service.port, lambda _: build(width))
        sending = asyncio.create_task(main.at_rate(per_s, BEFORE_S + fault.seconds))
        await asyncio.sleep(BEFORE_S)
        injected = monotonic()
        await asyncio.to_thread(fault.inject, service)
        if fault.marked is not None:
            await marked.at_rate(MARKED_PER_S, fault.after_s)
        else:
            await asyncio.sleep(fault.after_s)
        moved = fault.moves_clock and await asyncio.to_thread(clock_moved, service)
        await asyncio.to_thread(fault.undo, service)
        await sending
        over = monotonic()
        await asyncio.gather(main.finish(), marked.finish())
        served, same = False, False
        if service.running:
            service.wait_until_ready()
            status, _, after = service.ask("/generate", REFERENCE)
            served, same = status == 200, after == before
        exits = list(service.exits)
    outcome = Outcome(
        fault=fault.name,
        load=load,
        per_s=per_s,
        counts=main.record.counts(),
        marked=marked.record.counts(),
        surplus_bytes=main.record.surplus_bytes,
        exits=[each.status for each in exits],
        exit_after_s=exits[0].at - injected if exits else None,
        silence_s=main.record.silence_s(injected, over),
        served_at_the_end=served,
        same_bytes=same,
        clock_moved=moved,
    )
    return outcome.model_copy(update={"broken": list(broken(fault, outcome))})


def clock_moved(service: Service) -> bool:
    """Whether the date of an answer is hours from this process's; False where there is no answer."""
    with suppress(OSError, HTTPException):
        date = parsedate_to_datetime(str(service.ask("/livez")[1]["Date"]))
        return abs((date - datetime.now(UTC)).total_seconds()) > 3600
    return False


def broken(fault: Fault, seen: Outcome) -> Iterator[str]:
    """The promises that were not kept."""
    crashed = fault.may_crash and len(seen.exits) == 1 and (seen.exits[0] < 0 or seen.exits[0] == WORKER_LOST)
    allowed = PROMISED | (NO_ANSWER if fault.loses or fault.may_crash else set())
    if fault.ends is not None:
        allowed |= {UNREACHABLE}  # from the end of one process to the start of the next
    if unexpected := seen.counts.keys() - allowed - {UNSENT}:
        yield f"requests ended as {', '.join(sorted(unexpected))}"
    if "200" not in seen.counts:
        yield "no request was served"
    if seen.surplus_bytes:
        yield "more than one answer to a request"
    if not crashed and seen.exits != ([] if fault.ends is None else [fault.ends]):
        yield f"the process ended with {seen.exits or 'nothing'}"
    if fault.marked and not crashed:
        occurred = fault.marked_results[0] in seen.marked or fault.may_crash
        if not occurred or seen.marked.keys() - fault.marked_results - (NO_ANSWER & allowed):
            yield f"marked requests ended as {seen.marked}"
    if seen.clock_moved != fault.moves_clock:
        yield "the clock did not move"
    if fault.ends != 0 and not seen.served_at_the_end:
        yield "the request at the end was not served"
    elif fault.ends != 0 and seen.same_bytes == fault.new_bytes:
        yield "the old checkpoint was still served" if fault.new_bytes else "the bytes of a seed changed"


def markdown(found: list[Outcome]) -> str:
    """A table: a line a fault, a column a load."""
    lines = [f"| fault | {' | '.join(LOADS)} | as promised |", "| --- " * (len(LOADS) + 2) + "|"]
    for fault in dict.fromkeys(seen.fault for seen in found):
        row = {seen.load: seen for seen in found if seen.fault == fault}
        cells = [_cell(row[load]) if load in row else "" for load in LOADS]
        failed = "; ".join(dict.fromkeys(promise for seen in row.values() for promise in seen.broken))
        lines.append(f"| {fault} | {' | '.join(cells)} | {failed or 'yes'} |")
    return "\n".join(lines)


def _cell(seen: Outcome) -> str:
    ended = "" if seen.exit_after_s is None else f", exit {seen.exits[0]} after {seen.exit_after_s:.1f} s"
    return f"{seen.requests()}, longest silence {seen.silence_s:.1f} s{ended}"

"""Fairness: what honest callers of every operation see of a service that is under attack."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from io import BytesIO
from itertools import groupby

from PIL import Image
from pydantic import BaseModel, ConfigDict

from benchmarks.attacks import ATTACKS, Attack
from benchmarks.load_generator import UNSENT, Load, Record, post
from benchmarks.paths import DRAWING, ROOT, SHIPPED, UPLOAD
from benchmarks.processes import Service

CONNECTIONS, SECONDS = (8, 64, 256), 3.0
# Each honest caller asks so often, unless it still waits for its last answer.
HONEST_PER_S, PROBES_PER_S = 10.0, 20.0
ANSWERS_S, SETTLE_S, QUIET_S = 5.0, 10.0, 0.1
# What is promised: the share that is answered, and in milliseconds the time of a refusal, of `/livez`, and of any
# answer beside few attackers.
LEAST_SHARE, REFUSAL_MS, LIVEZ_MS, ANSWER_MS, FEW = 0.99, 50.0, 100.0, 1000.0, 8
PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Seen(BaseModel):
    """What one caller saw. refused: with 503, in time. worst_ms: of the answers; of `/livez`, of all requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    answered: int
    refused: int = 0
    worst_ms: float = 0.0


class Cell(BaseModel):
    """One attack by a number of connections. answers: those of the attackers, by status; cores: what they took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    connections: int
    honest: dict[str, Seen]
    livez: Seen
    answers: dict[str, int] = {}
    cores: float = 0.0

    @property
    def total(self) -> Seen:
        """What all honest callers saw."""
        seen = self.honest.values()
        return Seen(
            requests=sum(each.requests for each in seen),
            answered=sum(each.answered for each in seen),
            refused=sum(each.refused for each in seen),
            worst_ms=max(each.worst_ms for each in seen),
        )

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        total, found = self.total, []
        if total.answered < LEAST_SHARE * total.requests:
            found.append(f"{total.answered / total.requests:.1%} answered")
        if late := total.requests - total.answered - total.refused:
            found.append(f"{late / total.requests:.1%} neither answered nor refused in time")
        if self.connections <= FEW and total.worst_ms > ANSWER_MS:
            found.append(f"an answer after {total.worst_ms / 1000:.1f} s")
        if self.livez.answered < self.livez.requests:
            found.append("/livez was not answered")
        if self.livez.worst_ms > LIVEZ_MS:
            found.append(f"/livez after {self.livez.worst_ms:.0f} ms")
        return found


def honest_requests() -> dict[str, bytes]:
    """A request of each operation."""
    digit, photo = UPLOAD.read_bytes(), BytesIO()
    Image.open(DRAWING).save(photo, "PNG")
    return {
        "generate 1": post("/generate", b'{"n":1}'),
        "generate 16": post("/generate", b'{"n":16}'),
        "interpolate": post("/interpolate", b'{"steps":10}'),
        "score": post("/score?model=gan", digit, content_type="image/png"),
        "reconstruct": post("/reconstruct", digit, content_type="image/png"),
        "reconstruct a photo": post("/reconstruct", photo.getvalue(), content_type="image/png"),
    }


def measure(only: str | None, connections: int | None, seconds: float) -> list[Cell]:
    """Every attack by each number of connections, with a new service for each attack. Raises ServerFailed."""
    requests, found = honest_requests(), []
    for attack in ATTACKS:
        if only is not None and only not in attack.name:
            continue
        with Service(SHIPPED, log=f"fairness-{ATTACKS.index(attack)}") as service:
            for number in CONNECTIONS if connections is None else (connections,):
                settle(service)
                cell = asyncio.run(beside(attack, number, seconds, service.port, requests))
                print(f"{attack.name}, {number} connections: {details(cell)}", flush=True)
                found.append(cell)
    return found


def settle(service: Service) -> None:
    """Wait until the service is as quick as without an attack, but not for ever."""
    body, deadline = UPLOAD.read_bytes(), time.monotonic() + SETTLE_S
    while (started := time.monotonic()) < deadline:
        with suppress(OSError, HTTPException):
            if service.ask("/reconstruct", body, "image/png")[0] == 200 and time.monotonic() - started < QUIET_S:
                return
        time.sleep(QUIET_S)


async def beside(attack: Attack, connections: int, seconds: float, port: int, requests: dict[str, bytes]) -> Cell:
    """Honest callers and probes of `/livez` beside an attack."""
    command = [sys.executable, "-m", "benchmarks.attacks", attack.name, str(connections), str(seconds), str(port)]
    attackers = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    assert attackers.stdout is not None
    await attackers.stdout.readline()  # ready
    # One connection each; probes open a new one each time, so that every process is probed.
    honest = {name: Load(port, always(each), max_connections=1) for name, each in requests.items()}
    livez = Load(port, always(PROBE), max_connections=1)
    loads = [*honest.values(), livez]

    async def ask(number: int, load: Load) -> None:
        await asyncio.sleep(number / len(honest) / HONEST_PER_S)  # not all at the same moment
        await load.at_rate(HONEST_PER_S, seconds)

    asking = (ask(number, load) for number, load in enumerate(honest.values()))
    await asyncio.gather(*asking, livez.at_rate(PROBES_PER_S, seconds))
    await asyncio.gather(*(load.finish(ANSWERS_S) for load in loads))
    output, _ = await attackers.communicate()
    return Cell(
        attack=attack.name,
        connections=connections,
        honest={name: seen(load.record) for name, load in honest.items()},
        livez=seen(livez.record, every=True),
        **json.loads(output),
    )


def always(content: bytes) -> Callable[[int], bytes]:
    """Requests that are all the same."""
    return lambda _: content


def seen(record: Record, *, every: bool = False) -> Seen:
    """The figures of a record. every: the worst latency is that of all requests."""
    samples = [sample for sample in record.samples if sample.result != UNSENT]
    answered = record.latencies_ms()
    latencies = [1000 * (sample.ended - sample.due) for sample in samples] if every else answered
    return Seen(
        requests=len(samples),
        answered=len(answered),
        refused=sum(latency <= REFUSAL_MS for latency in record.latencies_ms("503")),
        worst_ms=max(latencies, default=0.0),
    )


def details(cell: Cell) -> str:
    """A line for people."""
    worst = ", ".join(
        f"{name} {each.answered}/{each.requests} {each.worst_ms:.0f} ms" for name, each in cell.honest.items()
    )
    verdict = "; ".join(cell.broken()) or "as promised"
    return f"{figures(cell)}; attackers: {cell.answers}, {cell.cores:.2f} cores; {worst}; {verdict}"


def figures(cell: Cell) -> str:
    """The figures of a cell for a table."""
    total = cell.total
    refused = f", {total.refused / total.requests:.1%} refused" if total.refused else ""
    answered = f"{total.answered / total.requests:.1%} answered{refused}"
    return f"{answered}, {total.worst_ms / 1000:.2f} s, `/livez` {cell.livez.worst_ms:.0f} ms"


def markdown(found: list[Cell]) -> str:
    """A table: a line an attack, a column a number of connections."""
    columns = " | ".join(f"{number} connections" for number in CONNECTIONS)
    lines = [f"| attack | {columns} | attackers' cores | as promised |", "| --- " * (len(CONNECTIONS) + 3) + "|"]
    for attack, group in groupby(found, lambda cell: cell.attack):
        row = {cell.connections: cell for cell in group}
        cells = [figures(row[number]) if number in row else "" for number in CONNECTIONS]
        broken = [str(number) for number, cell in row.items() if cell.broken()]
        verdict = f"not with {', '.join(broken)}" if broken else "yes"
        cores = max(cell.cores for cell in row.values())
        lines.append(f"| {attack} | {' | '.join(cells)} | {cores:.2f} | {verdict} |")
    return "\n".join(lines)

"""What callers of a fast model see beside callers of a sequential one, whose passes take long, and beside a stream."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Event
from time import monotonic

import httpx
from pydantic import BaseModel

from app.checkpoints.store import read_manifest
from benchmarks.paths import SHIPPED
from benchmarks.processes import Service
from benchmarks.workloads import Workload
from benchmarks.wrk import apply_load

FAST, CALLERS, SEQUENTIAL_CALLERS = "cgan", 64, 8
ROUNDS, WARM_UP_S = 3, 2
STREAM = {"model": FAST, "n": 100_000, "seed": 1}
FIGURES = ("images_per_s", "p99_ms", "neighbour_images_per_s", "memory_mib")


class Beside(BaseModel):
    """Medians over the rounds, of one image a request. memory_mib: of all processes, after the measurement."""

    neighbour: str
    images_per_s: float
    p99_ms: float
    neighbour_images_per_s: float
    memory_mib: float


def measure(seconds: int) -> list[Beside]:
    """The fast model alone, beside each sequential one that ships, and beside a stream, in turn in each round."""
    shipped = map(read_manifest, sorted(SHIPPED.glob("*/manifest.json")))
    neighbours: dict[str, Callable[[int, Event], float]] = {"none": lambda _, __: 0.0}
    for each in shipped:
        if each.sequential and "generate" in each.capabilities:
            slow = Workload(operation="generate", model=each.name, n=1, callers=SEQUENTIAL_CALLERS)
            neighbours[f"{SEQUENTIAL_CALLERS} callers of {each.name}"] = calling(slow, seconds + 2 * WARM_UP_S)
    neighbours[f"a stream of {FAST}"] = stream
    found: dict[str, list[Beside]] = {name: [] for name in neighbours}
    with Service(SHIPPED, log="neighbours") as service:
        for number in range(ROUNDS):
            for name, load in neighbours.items():
                found[name].append(beside(service, name, load, seconds, number))
    return [
        Beside(neighbour=name, **{key: median(getattr(one, key) for one in each) for key in FIGURES})
        for name, each in found.items()
    ]


def beside(service: Service, name: str, load: Callable[[int, Event], float], seconds: int, number: int) -> Beside:
    """One measurement."""
    seed = number * 10_000_000
    fast = Workload(operation="generate", model=FAST, n=1, callers=CALLERS)
    ended = Event()
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(load, service.port, ended)
        try:
            apply_load(service.port, "/generate", fast, WARM_UP_S, seed)
            seen = apply_load(service.port, "/generate", fast, seconds, seed + 1_000_000)
        finally:
            ended.set()
    memory, _, _ = service.resources()
    return Beside(
        neighbour=name,
        images_per_s=seen.requests / seen.seconds,
        p99_ms=seen.p99_ms,
        neighbour_images_per_s=others.result(),
        memory_mib=memory,
    )


def calling(workload: Workload, seconds: int) -> Callable[[int, Event], float]:
    """A neighbour that makes requests of one image; it returns its images a second."""

    def load(port: int, _: Event) -> float:
        result = apply_load(port, "/generate", workload, seconds, 1)
        return result.requests / result.seconds

    return load


def stream(port: int, ended: Event) -> float:
    """A neighbour that reads streams until `ended`; its images a second."""
    images, started = 0, monotonic()
    url, headers = f"http://127.0.0.1:{port}/generate", {"Accept": "application/x-ndjson"}
    while not ended.is_set():
        with httpx.stream("POST", url, json=STREAM, headers=headers) as answer:
            answer.raise_for_status()
            for piece in answer.iter_raw():
                images += piece.count(b"\n")
                if ended.is_set():
                    break
    return images / (monotonic() - started)


def markdown(found: list[Beside]) -> str:
    """A row for each neighbour, with ratios to the fast model alone."""
    alone = found[0]
    lines = [
        f"| {CALLERS} callers of {FAST} beside | images/s | p99 ms | p99, ratio | images/s of the neighbour | MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.neighbour} | {each.images_per_s:,.0f} | {each.p99_ms:.1f} | {each.p99_ms / alone.p99_ms:.2f} | "
        f"{each.neighbour_images_per_s:,.0f} | {each.memory_mib:,.0f} |"
        for each in found
    ]
    return "\n".join(lines)

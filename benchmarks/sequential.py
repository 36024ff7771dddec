"""What callers of a fast model see beside callers of a sequential one, whose passes take up to a second."""

from concurrent.futures import ThreadPoolExecutor
from statistics import median

from pydantic import BaseModel

from app.checkpoints.store import read_manifest
from benchmarks.paths import SHIPPED
from benchmarks.processes import Service
from benchmarks.workloads import Workload
from benchmarks.wrk import apply_load

FAST, FAST_CALLERS, SLOW_CALLERS = "cgan", 64, 8
ROUNDS, WARM_UP_S = 3, 2
FIGURES = ("images_per_s", "p99_ms", "sequential_images_per_s")


class Beside(BaseModel):
    """Medians over the rounds, of one image a request. sequential: None for the fast model alone."""

    sequential: str | None
    images_per_s: float
    p99_ms: float
    sequential_images_per_s: float = 0.0


def measure(seconds: int) -> list[Beside]:
    """The fast model alone and beside each sequential one that ships, in turn in each round."""
    shipped = map(read_manifest, sorted(SHIPPED.glob("*/manifest.json")))
    names = [None, *(each.name for each in shipped if each.sequential and "generate" in each.capabilities)]
    found: dict[str | None, list[Beside]] = {name: [] for name in names}
    with Service(SHIPPED, log="sequential") as service:
        for number in range(ROUNDS):
            for name in names:
                found[name].append(beside(service.port, name, seconds, number))
    return [
        Beside(sequential=name, **{key: median(getattr(one, key) for one in each) for key in FIGURES})
        for name, each in found.items()
    ]


def beside(port: int, sequential: str | None, seconds: int, number: int) -> Beside:
    """One measurement."""
    seed = number * 10_000_000
    fast = Workload(operation="generate", model=FAST, n=1, callers=FAST_CALLERS)
    with ThreadPoolExecutor(1) as pool:
        if sequential is not None:
            slow = Workload(operation="generate", model=sequential, n=1, callers=SLOW_CALLERS)
            load = pool.submit(apply_load, port, "/generate", slow, seconds + 2 * WARM_UP_S, seed)
        apply_load(port, "/generate", fast, WARM_UP_S, seed)
        seen = apply_load(port, "/generate", fast, seconds, seed + 1_000_000)
        others = 0.0 if sequential is None else load.result().requests / load.result().seconds
    return Beside(
        sequential=sequential,
        images_per_s=seen.requests / seen.seconds,
        p99_ms=seen.p99_ms,
        sequential_images_per_s=others,
    )


def markdown(found: list[Beside]) -> str:
    """A row for each neighbour, with ratios to the fast model alone."""
    alone = found[0]
    lines = [
        f"| {FAST_CALLERS} callers of {FAST}, {SLOW_CALLERS} of | images/s | p99 ms | p99, ratio | its images/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.sequential or 'none'} | {each.images_per_s:,.0f} | {each.p99_ms:.1f} | "
        f"{each.p99_ms / alone.p99_ms:.2f} | {each.sequential_images_per_s:,.1f} |"
        for each in found
    ]
    return "\n".join(lines)

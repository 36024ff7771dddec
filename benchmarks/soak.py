"""Soak test: an open loop at twice the capacity of the service, its answers and the growth of its resources."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import BaseModel

from benchmarks.load_generator import Load, percentile, post
from benchmarks.paths import SHIPPED
from benchmarks.processes import Service

CALLERS, CAPACITY_S, AT_CAPACITY_S, WARM_UP_S = 64, 5, 10, 3
SAMPLE_S = 1.0
# The statuses that overload may have: served, refused, and too late.
PROMISED = {"200", "503", "504", "unsent"}


class Soak(BaseModel):
    """The figures of a soak test. Rates are images a second, one a request; growth is over the second half."""

    model: str
    seconds: float
    capacity_per_s: float
    goodput_at_capacity_per_s: float
    goodput_per_s: float
    counts: dict[str, int]
    surplus_bytes: int
    left_in_flight: float
    p50_ms: float
    p99_ms: float
    refusal_p99_ms: float
    batch_ms: float
    rss_mib: float
    growth_mib: float
    growth_files: int
    growth_threads: int

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = [f"requests ended as {result}" for result in sorted(self.counts.keys() - PROMISED)]
        found += ["no request was served"] * ("200" not in self.counts)
        found += ["bytes were received without a request"] * bool(self.surplus_bytes)
        return found + ["requests are still in flight"] * bool(self.left_in_flight)


def generate_one(model: str) -> Callable[[int], bytes]:
    """Requests for one image, each with another seed."""
    return lambda number: post("/generate", b'{"model":"%b","n":1,"seed":%d}' % (model.encode(), number))


async def capacity(port: int, model: str, seconds: float = CAPACITY_S) -> float:
    """Images a second in a closed loop."""
    await run(port, model, lambda load: load.by_callers(CALLERS, WARM_UP_S))
    load = await run(port, model, lambda load: load.by_callers(CALLERS, seconds))
    return len(load.record.latencies_ms()) / seconds


async def run(port: int, model: str, loop: Callable[[Load], Awaitable[None]]) -> Load:
    """One load, until its last answer."""
    load = Load(port, generate_one(model))
    await loop(load)
    await load.finish()
    return load


async def measure(seconds: float, model: str, models: Path = SHIPPED) -> Soak:
    """Capacity, an open loop at it, then one at twice of it for `seconds`. Raises ServerFailed."""
    with Service(models, log="soak") as service:
        most = await capacity(service.port, model)
        at_most = (await run(service.port, model, lambda load: load.at_rate(most, AT_CAPACITY_S))).record
        resources = [service.resources()]

        async def sample() -> None:
            while True:
                await asyncio.sleep(SAMPLE_S)
                resources.append(service.resources())

        sampling = asyncio.create_task(sample())
        record = (await run(service.port, model, lambda load: load.at_rate(2 * most, seconds))).record
        sampling.cancel()
        batches = max(1.0, service.metric("digits_batch_duration_seconds_count"))
        batch_s = service.metric("digits_batch_duration_seconds_sum") / batches
        in_flight = service.metric("digits_requests_in_flight")
    latencies = record.latencies_ms()
    half = resources[len(resources) // 2]  # every buffer has its size by then
    mib, files, threads = (last - middle for last, middle in zip(resources[-1], half, strict=True))
    return Soak(
        model=model,
        seconds=seconds,
        capacity_per_s=most,
        goodput_at_capacity_per_s=len(at_most.latencies_ms()) / AT_CAPACITY_S,
        goodput_per_s=len(latencies) / seconds,
        counts=record.counts(),
        surplus_bytes=record.surplus_bytes,
        left_in_flight=in_flight,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        refusal_p99_ms=percentile(record.latencies_ms("503"), 0.99),
        batch_ms=1000 * batch_s,
        rss_mib=resources[-1][0],
        growth_mib=mib,
        growth_files=int(files),
        growth_threads=int(threads),
    )


def markdown(found: Soak) -> str:
    """A table of the figures."""
    counts = ", ".join(f"{result}: {count:,}" for result, count in found.counts.items())
    share = found.goodput_per_s / found.goodput_at_capacity_per_s
    growth = f"{found.growth_mib:+.1f} MiB, {found.growth_files:+d}, {found.growth_threads:+d}"
    rows = [
        (f"capacity, closed loop of {CALLERS} callers", f"{found.capacity_per_s:.0f} images/s"),
        ("goodput, open loop at capacity", f"{found.goodput_at_capacity_per_s:.0f} images/s"),
        ("goodput, open loop at twice capacity", f"{found.goodput_per_s:.0f} images/s, {share:.0%} of that"),
        ("requests by status", counts),
        ("p50, p99 of served requests", f"{found.p50_ms:.0f}, {found.p99_ms:.0f} ms"),
        ("p99 of refusals", f"{found.refusal_p99_ms:.0f} ms"),
        ("mean time of a batch", f"{found.batch_ms:.1f} ms"),
        ("growth over the second half: memory, open files, threads", growth),
        ("promises", "; ".join(found.broken()) or "kept"),
    ]
    lines = ["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", f"{found.seconds:.0f} s, one image of `{found.model}` a request."])

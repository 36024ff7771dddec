"""Twice what the service can do, for long: what it answers, refuses, and holds on to. Knows no fault."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from socket import create_connection
from time import monotonic
from typing import Any

from app.settings import Settings
from benchmarks.machine import facts
from benchmarks.openloop import Load, percentile, post
from benchmarks.places import RESULTS, ROOT
from benchmarks.supervised import Supervised

CALLERS, CAPACITY_S, AT_CAPACITY_S, WARM_UP_S = 64, 5, 10, 3
SAMPLE_S = 1.0
# What may wait by default; the first bound is met first where a request is for one image.
MAX_REQUESTS = Settings.model_fields["max_requests"].default
MAX_ROWS = Settings.model_fields["max_queued_rows"].default


def generate_one(model: str) -> Callable[[int], bytes]:
    """Requests for one image, each of another seed."""
    return lambda number: post("/generate", b'{"model":"%b","n":1,"seed":%d}' % (model.encode(), number))


async def capacity(port: int, model: str, seconds: float = CAPACITY_S) -> float:
    """Answers a second to callers who ask again at once."""
    await run(port, model, lambda load: load.by_callers(CALLERS, WARM_UP_S))
    load = await run(port, model, lambda load: load.by_callers(CALLERS, seconds))
    return len(load.record.latencies_ms()) / seconds


async def run(port: int, model: str, kind: Callable[[Load], Any]) -> Load:
    """Some load, to its last answer."""
    load = Load(port, generate_one(model))
    await kind(load)
    await load.finish()
    return load


async def measure(seconds: float, model: str, models: Path = ROOT / "models") -> dict[str, Any]:
    """Capacity, an open loop at it, then one at twice of it for `seconds`. Raises ServerFailed."""
    async with Supervised(models, restart=False) as service:
        most = await capacity(service.port, model)
        at_most = (await run(service.port, model, lambda load: load.at_rate(most, AT_CAPACITY_S))).record
        left = await asyncio.to_thread(leaving_ms, service, model)
        weights = [service.weight()]

        async def weigh() -> None:
            while True:
                await asyncio.sleep(SAMPLE_S)
                weights.append(service.weight())

        weighing = asyncio.create_task(weigh())
        record = (await run(service.port, model, lambda load: load.at_rate(2 * most, seconds))).record
        weighing.cancel()
        batch_s = service.metric(f'digits_inference_seconds_sum{{capability="generate",model="{model}"') / max(
            1.0, service.metric(f'digits_inference_seconds_count{{capability="generate",model="{model}"')
        )
        requests = service.metric("digits_requests_in_flight")
    ordered = record.latencies_ms()
    half = weights[len(weights) // 2]  # by then every buffer has its size
    goodput, at_capacity = len(ordered) / seconds, len(at_most.latencies_ms()) / AT_CAPACITY_S
    return {
        "model": model,
        "seconds": seconds,
        "capacity_per_s": most,
        "goodput_at_capacity_per_s": at_capacity,
        "goodput_per_s": goodput,
        "goodput_share": goodput / at_capacity,
        "counts": record.counts(),
        "surplus_bytes": record.surplus,
        "p50_ms": percentile(ordered, 0.5),
        "p99_ms": percentile(ordered, 0.99),
        "max_ms": ordered[-1] if ordered else None,
        # As many requests, or rows, as may be in flight, at the rate they were served, and two batches.
        "bound_ms": 1000 * MAX_REQUESTS / goodput + 2000 * batch_s,
        "rows_bound_ms": 1000 * MAX_ROWS / goodput + 2000 * batch_s,
        "leaving_ms": left,
        "refusal_p99_ms": percentile(record.latencies_ms(503), 0.99),
        "batch_ms": 1000 * batch_s,
        "left_in_flight": requests,
        "growth_mib": weights[-1][0] - half[0],
        "growth_files": weights[-1][1] - half[1],
        "growth_threads": weights[-1][2] - half[2],
        "rss_mib": weights[-1][0],
    }


def leaving_ms(service: Supervised, model: str) -> float:
    """From the moment that eight callers of 256 images hang up until none of their rows is in flight."""
    request = post("/generate", b'{"model":"%b","n":256}' % model.encode())
    with ExitStack() as stack:
        for _ in range(8):
            caller = stack.enter_context(create_connection(("127.0.0.1", service.port)))
            caller.sendall(request)
        while service.metric("digits_rows_in_flight") < 4 * 256:
            pass
    left_at = monotonic()
    while service.metric("digits_rows_in_flight"):
        pass
    return 1000 * (monotonic() - left_at)


def markdown(found: dict[str, Any]) -> str:
    """A table of the figures."""
    counts = ", ".join(f"{name}: {count:,}" for name, count in found["counts"].items())
    rows = [
        ("capacity, 64 callers who ask again at once", f"{found['capacity_per_s']:.0f} images/s"),
        ("goodput of an open loop at capacity", f"{found['goodput_at_capacity_per_s']:.0f} images/s"),
        (
            "goodput at twice capacity",
            f"{found['goodput_per_s']:.0f} images/s, {100 * found['goodput_share']:.0f} % of that",
        ),
        ("what requests came to", counts),
        ("p50, p99 of those served", f"{found['p50_ms']:.0f}, {found['p99_ms']:.0f} ms"),
        (
            f"two batches, and all {MAX_REQUESTS} requests, or all {MAX_ROWS:,} rows, that may wait",
            f"{found['bound_ms']:.0f} ms, {found['rows_bound_ms']:.0f} ms",
        ),
        ("rows of eight callers who left are free after", f"{found['leaving_ms']:.0f} ms"),
        ("p99 of a refusal", f"{found['refusal_p99_ms']:.0f} ms"),
        ("a batch, mean", f"{found['batch_ms']:.1f} ms"),
        (
            "growth over the second half: memory, files, threads",
            f"{found['growth_mib']:+.1f} MiB, {found['growth_files']:+d}, {found['growth_threads']:+d}",
        ),
    ]
    lines = ["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", f"{found['seconds']:.0f} s, one image of `{found['model']}` a request."])


def write(found: dict[str, Any]) -> None:
    """Keep the figures with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps({"machine": facts("none"), **found}, indent=1) + "\n")


def read() -> dict[str, Any]:
    """What `write` kept."""
    found: dict[str, Any] = json.loads((RESULTS / "soak.json").read_text())
    return found

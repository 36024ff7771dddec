"""How speed and memory change with the number of processes, callers and models."""

import json
import shutil
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from benchmarks.paths import SCRATCH, SHIPPED
from benchmarks.processes import Service, proportional_memory
from benchmarks.workloads import Operation, Workload
from benchmarks.wrk import apply_load

PROCESSES, CALLERS, MODELS = (1, 2, 4), (1, 8, 64, 256, 1024), (1, 5, 15)
NETWORKS = ("vae", "gan")
OPERATION: Operation = "generate"
WARM_UP_S = 3
ON_PAPER = (16, 64)

Axis = Literal["processes", "callers", "models"]


class Point(BaseModel):
    """One image a request. Memory is the PSS of all processes at the end of the load; `errors` are no images."""

    axis: Axis
    value: int
    model: str
    images_per_s: float
    p99_ms: float
    errors: int
    memory_mib: float


def measure(seconds: int) -> Iterator[Point]:
    """Yields each point as it is measured. Where an axis does not change: 64 callers, shipped models, defaults."""
    for processes in PROCESSES:
        with Service(SHIPPED, {"DIGITS_PROCESSES": str(processes)}, log="growth") as service:
            yield from points(service, "processes", processes, 64, seconds)
    with Service(SHIPPED, log="growth") as service:
        for callers in CALLERS:
            yield from points(service, "callers", callers, callers, seconds)
    for count in MODELS:
        with Service(copy_models(count, SCRATCH / "models"), log="growth") as service:
            yield from points(service, "models", count, 64, seconds)


def points(service: Service, axis: Axis, value: int, callers: int, seconds: int) -> Iterator[Point]:
    """A point for each of the networks that is loaded."""
    for model in NETWORKS:
        if (service.models / model).exists():
            workload = Workload(operation=OPERATION, model=model, n=1, callers=callers)
            apply_load(service.port, "/generate", workload, WARM_UP_S, first_seed=0)
            load = apply_load(service.port, "/generate", workload, seconds, first_seed=1_000_000)
            yield Point(
                axis=axis,
                value=value,
                model=model,
                images_per_s=(load.requests - load.errors) / load.seconds,
                p99_ms=load.p99_ms,
                errors=load.errors,
                memory_mib=proportional_memory() / 2**20,
            )


def copy_models(count: int, folder: Path) -> Path:
    """A directory with `count` checkpoints: the shipped ones, `vae` first, then copies of them with other names."""
    shutil.rmtree(folder, ignore_errors=True)
    shipped = sorted((path.parent for path in SHIPPED.glob("*/manifest.json")), key=lambda path: path.name != "vae")
    for number, source in enumerate(islice(cycle(shipped), count)):
        turn = number // len(shipped)
        target = folder / (f"{source.name}-copy-{turn}" if turn else source.name)
        shutil.copytree(source, target)
        manifest = json.loads((target / "manifest.json").read_text()) | {"name": target.name}
        manifest.pop("checksum", None)
        (target / "manifest.json").write_text(json.dumps(manifest))
    return folder


def markdown(found: list[Point], conditions: dict[str, Any]) -> str:
    """A table, a plot over the callers, and the arithmetic for more cores."""
    lines = [
        "| number of | | vae, images/s | p99 ms | gan, images/s | p99 ms | MiB | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for axis, value in dict.fromkeys((point.axis, point.value) for point in found):
        group = {point.model: point for point in found if (point.axis, point.value) == (axis, value)}
        figures = [
            f"{group[model].images_per_s:,.0f} | {group[model].p99_ms:,.1f}" if model in group else " | "
            for model in NETWORKS
        ]
        memory = max(point.memory_mib for point in group.values())
        errors = sum(point.errors for point in group.values())
        lines.append(f"| {axis} | {value:,} | {' | '.join(figures)} | {memory:,.0f} | {errors:,} |")
    return "\n".join([*lines, "", plot(found), "", on_paper(found, conditions["cores"])])


def plot(found: list[Point]) -> str:
    """Images a second over the callers, as a diagram that GitHub draws."""
    rates = {
        model: [point.images_per_s for point in found if (point.axis, point.model) == ("callers", model)]
        for model in NETWORKS
    }
    callers = ", ".join(f'"{callers:,}"' for callers in CALLERS)
    bars = [f"    line [{', '.join(f'{rate:.0f}' for rate in rates[model])}]" for model in NETWORKS]
    head = ["```mermaid", "xychart-beta", f'    title "images a second: {", ".join(NETWORKS)}"']
    axes = [
        f'    x-axis "callers" [{callers}]',
        '    y-axis "images a second" 0 --> ' + f"{1.1 * max(max(r) for r in rates.values()):.0f}",
    ]
    return "\n".join([*head, *axes, *bars, "```"])


def on_paper(found: list[Point], measured_cores: int) -> str:
    """Images a second and memory with more cores, were each core worth as much as the measured ones.

    The memory of a further process is that between the two largest numbers of processes.
    """
    at = {(point.model, point.value): point for point in found if point.axis == "processes"}
    lines = []
    for model in NETWORKS:
        one, all_cores = at[model, 1], at[model, measured_cores]
        share = all_cores.images_per_s / one.images_per_s / measured_cores
        second, last = sorted(value for name, value in at if name == model)[-2:]
        each = (at[model, last].memory_mib - at[model, second].memory_mib) / (last - second)
        paper = "; ".join(
            f"{cores} cores {cores * share * one.images_per_s:,.0f} images/s in "
            f"{at[model, last].memory_mib + (cores - last) * each:,.0f} MiB"
            for cores in ON_PAPER
        )
        lines.append(
            f"- {model}: {measured_cores} processes make {share * measured_cores:.2f} times the images of one, so each "
            f"core is worth {share:.0%}; a further process takes {each:,.0f} MiB. On paper: {paper}."
        )
    return "\n".join(lines)

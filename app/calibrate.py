"""`python -m app calibrate`: measures how a machine computes best and writes it down. Knows no HTTP."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from app.checkpoints.store import Model, load_models
from app.inference.latents import normal_rows, uniform_labels
from app.inference.runtime import Inputs, Labelled, Network, Runtime
from app.settings import Settings

BATCH_ROWS = (4, 8, 16, 32, 64, 128)
# Of two batches that compute about as fast the smaller one answers sooner.
GOOD_ENOUGH = 0.97
COMMENT = "# Measured by `python -m app calibrate`. The environment goes before this file."


@dataclass(frozen=True)
class Measurement:
    """Rows a second of one model's `generate`, with so many passes at a time, of so many rows each."""

    model: str
    workers: int
    batch_rows: int
    rows_per_second: float


def measure(settings: Settings, seconds: float = 1.0) -> Iterator[Measurement]:
    """Each model that generates, with every number of workers up to the default and every size of batch.

    Raises CheckpointError and DeviceUnavailable as a start would. Meant for a machine that does nothing else.
    """
    runtime = Runtime(settings.device, settings.precision)
    workers = sorted({1, max(1, runtime.default_workers // 2), runtime.default_workers})
    # On a GPU a network has one shape, that of the largest batch: it is loaded anew for each.
    fixed = runtime.device.type == "cuda"
    models = {} if fixed else load_models(settings.models_dir, runtime, max(BATCH_ROWS))
    for rows in BATCH_ROWS:
        for model in (load_models(settings.models_dir, runtime, rows) if fixed else models).values():
            if "generate" in model.networks:
                for size in workers:
                    rate = throughput(model, size, rows, seconds)
                    yield Measurement(model.name, size, rows, rate)


def throughput(model: Model, workers: int, batch_rows: int, seconds: float) -> float:
    """Rows a second of `generate` over `seconds`, on so many threads at the same time."""
    network = model.networks["generate"]
    latents = normal_rows(0, 0, batch_rows, model.manifest.latent_dim)
    rows: Inputs = latents
    if model.manifest.takes_labels("generate"):
        rows = Labelled(latents, uniform_labels(0, 0, batch_rows, len(model.manifest.classes)))
    passes_until(network, rows, monotonic())  # this size's first pass may choose kernels
    started = monotonic()
    with ThreadPoolExecutor(workers, initializer=Runtime.prepare_thread) as threads:
        done = sum(threads.map(lambda _: passes_until(network, rows, started + seconds), range(workers)))
    return done * batch_rows / (monotonic() - started)


def passes_until(network: Network, rows: Inputs, end: float) -> int:
    """Forward passes of `rows`, at least one, until the clock shows `end`; how many."""
    passes = 0
    while passes == 0 or monotonic() < end:
        network.compute([rows])
        passes += 1
    return passes


def best(measurements: list[Measurement]) -> tuple[int, int]:
    """Workers and batch rows that serve all models well: (workers, rows). There is at least one measurement.

    Models are weighed alike: what counts is the geometric mean of each one's rate over its own best. Of
    the choices within GOOD_ENOUGH of the best one, the one with the fewest rows, then the fewest workers.
    """
    fastest: dict[str, float] = {}
    for one in measurements:
        fastest[one.model] = max(one.rows_per_second, fastest.get(one.model, 0.0))
    shares: dict[tuple[int, int], list[float]] = {}
    for one in measurements:
        shares.setdefault((one.batch_rows, one.workers), []).append(one.rows_per_second / fastest[one.model])
    scores = {choice: math.exp(math.fsum(map(math.log, each)) / len(each)) for choice, each in shares.items()}
    rows, workers = min(choice for choice, score in scores.items() if score >= GOOD_ENOUGH * max(scores.values()))
    return workers, rows


def table(measurements: list[Measurement]) -> str:
    """Rows a second, a line for each model and number of workers, a column for each size of batch."""
    rates: Mapping[tuple[str, int, int], float] = {
        (one.model, one.workers, one.batch_rows): one.rows_per_second for one in measurements
    }
    lines = ["model             workers" + "".join(f"{rows:>8}" for rows in BATCH_ROWS)]
    for model, workers in sorted({(one.model, one.workers) for one in measurements}):
        cells = "".join(f"{rates[model, workers, rows]:>8.0f}" for rows in BATCH_ROWS)
        lines.append(f"{model:<18}{workers:>7}{cells}")
    return "\n".join(lines)


def write(path: Path, workers: int, batch_rows: int) -> None:
    """The settings file that a start reads, its other lines as they were. Raises OSError and UnicodeDecodeError.

    The file is the old one or the new one, never half of it.
    """
    measured = {"DIGITS_WORKERS": workers, "DIGITS_MAX_BATCH_ROWS": batch_rows}
    old = path.read_text("utf-8").splitlines() if path.exists() else [COMMENT]
    kept = [line for line in old if line.partition("=")[0].strip().upper() not in measured]
    lines = [*kept, *(f"{name}={value}" for name, value in measured.items())]
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text("\n".join(lines) + "\n", "utf-8")
    temporary.replace(path)

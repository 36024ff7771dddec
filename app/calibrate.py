"""`python -m app calibrate`: measure the best number of workers and batch size of a machine, and save them."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from app.checkpoints.capabilities import Symbol
from app.inference.latents import normal_rows, uniform_labels
from app.inference.model import Model, load_models
from app.inference.runtime import Runtime
from app.settings import Settings

BATCH_ROWS = (4, 8, 16, 32, 64, 128)
# Of choices within this share of the best throughput, the smallest batch is taken, as it has the lowest latency.
GOOD_ENOUGH = 0.97
COMMENT = "# Measured by `python -m app calibrate`. Environment variables override this file."


@dataclass(frozen=True)
class Measurement:
    """Throughput of the `generate` of one model, in rows a second."""

    model: str
    workers: int
    batch_rows: int
    rows_per_second: float


def measure(settings: Settings, seconds: float = 1.0) -> Iterator[Measurement]:
    """Measure each model that generates with several numbers of workers and batch sizes, on an idle machine.

    Raises CheckpointError and DeviceUnavailable.
    """
    runtime = Runtime(settings.device, settings.precision)
    workers = sorted({1, max(1, runtime.default_workers // 2), runtime.default_workers})
    # On a GPU every batch has the size of the largest one, so models are loaded again for each size.
    fixed = runtime.device.type == "cuda"
    models = {} if fixed else load_models(settings.models_dir, runtime, max(BATCH_ROWS))
    for rows in BATCH_ROWS:
        for model in (load_models(settings.models_dir, runtime, rows) if fixed else models).values():
            if "generate" in model.networks:
                for size in workers:
                    rate = throughput(model, size, rows, seconds)
                    yield Measurement(model.name, size, rows, rate)


def throughput(model: Model, workers: int, batch_rows: int, seconds: float) -> float:
    """Rows a second of `generate` on `workers` threads, measured for `seconds`."""
    latents = normal_rows(0, 0, batch_rows, *model.manifest.shape(Symbol.LATENT))
    labels = uniform_labels(0, 0, batch_rows, max(1, len(model.manifest.classes)))

    def passes_until(end: float) -> int:
        passes = 0
        while passes == 0 or monotonic() < end:
            model.run("generate", latents, labels)
            passes += 1
        return passes

    passes_until(monotonic())  # the first pass of a batch size may choose kernels
    started = monotonic()
    with ThreadPoolExecutor(workers, initializer=Runtime.prepare_thread) as threads:
        done = sum(threads.map(lambda _: passes_until(started + seconds), range(workers)))
    return done * batch_rows / (monotonic() - started)


def best(measurements: list[Measurement]) -> tuple[int, int]:
    """The best (workers, batch rows) of at least one measurement.

    The score of a choice is the geometric mean over the models of its throughput relative to the best one of the model.
    Of the choices within GOOD_ENOUGH of the best score, it is the one with the fewest rows, then the fewest workers.
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
    """The measurements as a table with a line for each model and number of workers."""
    rates: Mapping[tuple[str, int, int], float] = {
        (one.model, one.workers, one.batch_rows): one.rows_per_second for one in measurements
    }
    lines = ["model             workers" + "".join(f"{rows:>8}" for rows in BATCH_ROWS)]
    for model, workers in sorted({(one.model, one.workers) for one in measurements}):
        cells = "".join(f"{rates[model, workers, rows]:>8.0f}" for rows in BATCH_ROWS)
        lines.append(f"{model:<18}{workers:>7}{cells}")
    return "\n".join(lines)


def write(path: Path, workers: int, batch_rows: int) -> None:
    """Set both values in the settings file, atomically. Raises OSError and UnicodeDecodeError."""
    measured = {"DIGITS_WORKERS": workers, "DIGITS_MAX_BATCH_ROWS": batch_rows}
    old = path.read_text("utf-8").splitlines() if path.exists() else [COMMENT]
    kept = [line for line in old if line.partition("=")[0].strip().upper() not in measured]
    lines = [*kept, *(f"{name}={value}" for name, value in measured.items())]
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text("\n".join(lines) + "\n", "utf-8")
    temporary.replace(path)

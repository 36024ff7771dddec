"""The speed of the models without a server: each form of `generate`, on one core and on all of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from pydantic import BaseModel
from torch import Tensor

from benchmarks.archives import NAMES, archive_path, entries, load_archive
from benchmarks.conditions import cores
from benchmarks.paths import MODELS

Forward = Callable[[Tensor], Tensor]

BATCHES = (1, 8, 32)
LATENT_DIM = {"gan": 100, "vae": 16}


class Rate(BaseModel):
    """Images a second of a form over the rounds."""

    model: str
    form: str
    workers: int
    batch: int
    median: float
    least: float
    greatest: float


def measure(rounds: int, seconds: float) -> list[Rate]:
    """Every form with every batch in every round: noise of the machine affects all alike."""
    torch.set_num_threads(1)
    found: dict[tuple[str, str, int, int], list[float]] = {}
    cases = list(_cases())
    for _ in range(rounds):
        for model, form, forward, rows in cases:
            for workers in (1, cores()):
                rate = len(rows) * _calls_per_s(forward, rows, workers, seconds)
                found.setdefault((model, form, workers, len(rows)), []).append(rate)
    return [
        Rate(model=model, form=form, workers=workers, batch=batch, median=median(v), least=min(v), greatest=max(v))
        for (model, form, workers, batch), v in found.items()
    ]


def forms(model: str) -> dict[str, Forward]:
    """`generate` of the archives of a model: as PyTorch loads them, and as the service does."""
    plain = archive_path("plain", model)
    found = {"plain": load(plain), "plain, frozen, channels last": load(plain, frozen=True)}
    fast = MODELS / "fast" / model
    return found | {
        f"fast {precision}": load(fast / entry["file"], frozen=True) for precision, entry in entries(fast).items()
    }


def load(path: Path, *, frozen: bool = False) -> Forward:
    """`generate` of an archive; `frozen`: constants folded, in channels-last memory, as in the service."""
    module = load_archive(path)
    if frozen:
        module = torch.jit.freeze(module.to(memory_format=torch.channels_last), preserved_attrs=["generate"])
    forward: Forward = module.generate
    return forward


def _cases() -> Iterator[tuple[str, str, Forward, Tensor]]:
    for model in NAMES:
        for form, forward in forms(model).items():
            for batch in BATCHES:
                yield model, form, forward, torch.randn(batch, LATENT_DIM[model])


def _calls_per_s(forward: Forward, rows: Tensor, workers: int, seconds: float) -> float:
    def call_until(end: float) -> int:
        calls = 0
        with torch.inference_mode():
            while calls == 0 or perf_counter() < end:
                forward(rows)
                calls += 1
        return calls

    for _ in range(3):  # TorchScript profiles its first calls, then optimises
        call_until(0)
    started = perf_counter()
    # The number of PyTorch's threads is set for each thread.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        calls = sum(threads.map(call_until, [started + seconds] * workers))
    return calls / (perf_counter() - started)


def markdown(rates: list[Rate]) -> str:
    """A table of images a second, and the ratio of each form's best to that of the plain one."""
    lines = [f"| model | form | workers | {' | '.join(f'B={batch}' for batch in BATCHES)} |"]
    lines.append("| --- " * (3 + len(BATCHES)) + "|")
    table = {(rate.model, rate.form, rate.workers, rate.batch): rate.median for rate in rates}
    for key in dict.fromkeys((rate.model, rate.form, rate.workers) for rate in rates):
        figures = " | ".join(f"{table[(*key, batch)]:,.0f}" for batch in BATCHES)
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {figures} |")
    best: dict[tuple[str, str], float] = {}
    for rate in rates:
        best[rate.model, rate.form] = max(rate.median, best.get((rate.model, rate.form), 0))
    ratios = [
        f"- {model}, {form}: {value / best[model, 'plain']:.2f} times the plain form, best to best"
        for (model, form), value in best.items()
        if form != "plain"
    ]
    return "\n".join([*lines, "", *ratios])

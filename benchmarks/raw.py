"""The models' own speed, without any server: each form of `generate`, on one core and on all of them."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from app.inference.machine import computes_in_bfloat16
from benchmarks.archives import NAMES, archive_path
from benchmarks.machine import cores, facts
from benchmarks.places import MODELS, RESULTS

Forward = Callable[[Tensor], Tensor]

BATCHES = (1, 8, 32)
WIDTHS = {"gan": 100, "vae": 16}
# Multiply-adds of one image of the textbook GAN: dense layer, two transposed convolutions, the last convolution.
GAN_MULTIPLY_ADDS = 100 * 6272 + 14 * 14 * 4 * 128 * 128 + 28 * 28 * 4 * 128 * 128 + 28 * 28 * 49 * 128
MATRIX = 2048


@dataclass(frozen=True)
class Rate:
    """Images a second of a form over the rounds; for the roofline, 10^9 floating-point operations a second."""

    model: str
    form: str
    workers: int
    batch: int
    median: float
    least: float
    greatest: float


def measure(rounds: int, seconds: float) -> list[Rate]:
    """Every form with every batch in every round, forms next to each other, so that noise hits all alike."""
    torch.set_num_threads(1)
    found: dict[tuple[str, str, int, int], list[float]] = {}
    cases = [*_cases(), *_rooflines()]
    for _ in range(rounds):
        for model, form, forward, rows in cases:
            for workers in (1, cores()):
                work = _work(form, rows)
                rate = work * _calls_a_second(forward, rows, workers, seconds)
                found.setdefault((model, form, workers, len(rows)), []).append(rate)
    return [Rate(*key, median(rates), min(rates), max(rates)) for key, rates in found.items()]


def forms(model: str) -> dict[str, Forward]:
    """`generate` of a model's archives: as any PyTorch loads them, and as the service does."""
    manifest = json.loads((MODELS / "fast" / model / "manifest.json").read_text())
    fast = {name: MODELS / "fast" / model / entry["file"] for name, entry in manifest["archives"].items()}
    if not computes_in_bfloat16(torch.device("cpu")):
        fast.pop("bfloat16", None)
    plain = archive_path("plain", model)
    found = {"plain": load(plain), "plain, frozen, channels last": load(plain, frozen=True)}
    return found | {f"fast {precision}": load(path, frozen=True) for precision, path in fast.items()}


def load(path: Path, *, frozen: bool = False) -> Forward:
    """An archive's `generate`; `frozen` in channels-last memory, as `app.inference.runtime` has it."""
    module: Any = torch.jit.load(path).eval()  # type: ignore[no-untyped-call]
    if frozen:
        module = torch.jit.freeze(module.to(memory_format=torch.channels_last), preserved_attrs=["generate"])
    forward: Forward = module.generate
    return forward


def _cases() -> Iterator[tuple[str, str, Forward, Tensor]]:
    for model in NAMES:
        for form, forward in forms(model).items():
            for batch in BATCHES:
                yield model, form, forward, torch.randn(batch, WIDTHS[model])


def _rooflines() -> Iterator[tuple[str, str, Forward, Tensor]]:
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.float32 or computes_in_bfloat16(torch.device("cpu")):
            matrix = torch.randn(MATRIX, MATRIX).to(dtype)
            yield "roofline", f"matrix product {dtype}".replace("torch.", ""), matrix.matmul, matrix


def _work(form: str, rows: Tensor) -> float:
    return 2 * MATRIX**3 / 1e9 if form.startswith("matrix") else len(rows)


def _calls_a_second(forward: Forward, rows: Tensor, workers: int, seconds: float) -> float:
    def call_until(end: float) -> int:
        calls = 0
        with torch.inference_mode():
            while calls == 0 or perf_counter() < end:
                forward(rows)
                calls += 1
        return calls

    for _ in range(3):  # TorchScript profiles, then optimises
        call_until(0)
    started = perf_counter()
    # Each thread has a number of threads of its own.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        calls = sum(threads.map(call_until, [started + seconds] * workers))
    return calls / (perf_counter() - started)


def best(rates: list[Rate], model: str, form: str) -> Rate:
    """The batch and the number of workers with which a form is fastest."""
    return max((rate for rate in rates if (rate.model, rate.form) == (model, form)), key=lambda rate: rate.median)


def markdown(rates: list[Rate]) -> str:
    """A table of images a second, and what the fast form reaches of the plain one and of the roofline."""
    lines = ["| model | form | workers | " + " | ".join(f"B={batch}" for batch in BATCHES) + " |"]
    lines.append("| --- " * (3 + len(BATCHES)) + "|")
    table = {(rate.model, rate.form, rate.workers, rate.batch): rate.median for rate in rates}
    for model, form, workers in dict.fromkeys((r.model, r.form, r.workers) for r in rates if r.model != "roofline"):
        cells = " | ".join(f"{table[model, form, workers, batch]:.0f}" for batch in BATCHES)
        lines.append(f"| {model} | {form} | {workers} | {cells} |")
    lines += [
        f"| | {rate.form}, 10^9 operations a second | {rate.workers} | | | {rate.median:.0f} |"
        for rate in rates
        if rate.model == "roofline"
    ]
    lines.append("")
    for model in NAMES:
        plain = best(rates, model, "plain")
        for form in dict.fromkeys(rate.form for rate in rates if rate.model == model and rate.form != "plain"):
            ratio = best(rates, model, form).median / plain.median
            lines.append(f"- {model}: {form} is {ratio:.2f} times as fast as plain, best over best")
    for precision in ("float32", "bfloat16"):
        peak = [rate for rate in rates if rate.form == f"matrix product {precision}"]
        if peak:
            bound = max(rate.median for rate in peak) * 1e9 / (2 * GAN_MULTIPLY_ADDS)
            share = best(rates, "gan", f"fast {precision}").median / bound
            lines.append(f"- gan: fast {precision} reaches {share:.2f} of its roofline of {bound:.0f} images a second")
    return "\n".join(lines)


def write(rates: list[Rate], allocator: str) -> None:
    """Keep the figures with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts(allocator), "rates": [asdict(rate) for rate in rates]}
    (RESULTS / "raw.json").write_text(json.dumps(content, indent=1) + "\n")


def read() -> list[Rate]:
    """What `write` kept."""
    return [Rate(**rate) for rate in json.loads((RESULTS / "raw.json").read_text())["rates"]]

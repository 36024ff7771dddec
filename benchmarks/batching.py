"""How batches behave from one caller to overload: one service with all models, more and more callers."""

import io
import json
import re
from http.client import HTTPConnection
from time import monotonic
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.cells import Cell, Configuration
from benchmarks.load import apply_load
from benchmarks.machine import facts
from benchmarks.places import RESULTS, SHIPPED
from benchmarks.processes import running, weigh

CALLERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# A queue short enough that the last steps overload it.
MAX_QUEUED_ROWS = 400
WARM_UP_S = 1


class Step(NamedTuple):
    """What so many callers saw: images and refusals a second, latency; what the queue did meanwhile, and memory.

    The latency is that of all answers: where some are refusals, which take no time, it is nobody's.
    """

    callers: int
    images_per_s: float
    refused_per_s: float
    p50_ms: float
    p99_ms: float
    rows_a_batch: float
    queued_ms: float
    rss_mib: float

    @property
    def served(self) -> bool:
        """Whether every answer was one of images."""
        return self.refused_per_s == 0


class Run(NamedTuple):
    """All steps, and how long the service took until it was ready."""

    start_s: float
    steps: list[Step]


def measure(seconds: int, allocator: str) -> Run:
    """Every number of callers for `seconds`, one image of the GAN a request. Raises ServerFailed and LoadFailed."""
    knobs = {"max_queued_rows": MAX_QUEUED_ROWS, "models_dir": SHIPPED}
    started = monotonic()
    with running(Configuration("digits", "fast"), knobs, allocator) as port:
        ready = monotonic() - started
        return Run(ready, [_step(port, callers, seconds) for callers in CALLERS])


def _step(port: int, callers: int, seconds: int) -> Step:
    cell = Cell(operation="generate", model="gan", n=1, callers=callers)
    apply_load(port, "/generate", cell, WARM_UP_S, first_seed=0)
    before = _metrics(port)
    load = apply_load(port, "/generate", cell, seconds, first_seed=10_000_000)
    after = _metrics(port)
    batches = after["digits_batch_rows_count"] - before["digits_batch_rows_count"]
    rows = after["digits_batch_rows_sum"] - before["digits_batch_rows_sum"]
    waits = after["digits_queue_seconds_count"] - before["digits_queue_seconds_count"]
    waited = after["digits_queue_seconds_sum"] - before["digits_queue_seconds_sum"]
    return Step(
        callers,
        (load.requests - load.bad_statuses) / load.duration_s,
        load.bad_statuses / load.duration_s,
        load.p50_ms,
        load.p99_ms,
        rows / batches,
        1000 * waited / waits,
        weigh().rss_bytes / 2**20,
    )


def _metrics(port: int) -> dict[str, float]:
    """The series of the GAN's `generate`, by name."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r'^(\w+)\{capability="generate",model="gan"\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def markdown(run: Run) -> str:
    """A table of the steps."""
    lines = ["| callers | images/s | refused/s | p50 ms | p99 ms | rows a batch | ms in the queue | MiB |"]
    lines.append("| --- " * 8 + "|")
    lines += [
        f"| {s.callers} | {s.images_per_s:.0f} | {s.refused_per_s:.0f} | {_latency(s, s.p50_ms)} | "
        f"{_latency(s, s.p99_ms)} | {s.rows_a_batch:.1f} | {s.queued_ms:.1f} | {s.rss_mib:.0f} |"
        for s in run.steps
    ]
    return "\n".join([*lines, "", f"Ready {run.start_s:.1f} s after its start, with all models that ship."])


def _latency(step: Step, value: float) -> str:
    return f"{value:.1f}" if step.served else ""


def plot(run: Run) -> bytes:
    """Throughput, batches and latency over the number of callers; PNG."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    rate, rows, time = figure.subplots(1, 3)
    callers = [step.callers for step in run.steps]
    rate.plot(callers, [step.images_per_s for step in run.steps], "o-", label="images a second")
    rate.plot(callers, [step.refused_per_s for step in run.steps], "s--", label="refused a second (503)")
    rate.set_title("throughput")
    rows.plot(callers, [step.rows_a_batch for step in run.steps], "o-", label="rows of a batch, mean")
    rows.set_title("batches")
    served = [step for step in run.steps if step.served]
    time.plot(callers[: len(served)], [step.p50_ms for step in served], "o-", label="p50")
    time.plot(callers[: len(served)], [step.p99_ms for step in served], "^-", label="p99")
    time.plot(callers, [step.queued_ms for step in run.steps], "s--", label="in the queue, mean")
    time.set_title("milliseconds")
    time.set_yscale("log")
    for axes in (rate, rows, time):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("callers")
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def write(run: Run, allocator: str) -> None:
    """`batching.json` and `batching.png` with the facts of the machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts(allocator), **run._asdict(), "steps": [step._asdict() for step in run.steps]}
    (RESULTS / "batching.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "batching.png").write_bytes(plot(run))


def read() -> Run:
    """What `write` kept."""
    content = json.loads((RESULTS / "batching.json").read_text())
    return Run(content["start_s"], [Step(**step) for step in content["steps"]])

"""The metrics of the service.

Labels take values from fixed sets only (route templates, model names, error codes): no request can add a series.

With several processes, prometheus-client keeps the values in the files of `PROMETHEUS_MULTIPROC_DIR`, and a scrape of
any process gives the sums of all, also of those that have ended.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app import __version__
from app.errors import CAUSES
from app.scoreboard import Scoreboard

# Set before this module is imported, see `app.server.supervisor`.
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UNMATCHED = "unmatched"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry an app, so that two apps in a process share nothing."""

    def __init__(self, scoreboard: Scoreboard | None = None, limits: Mapping[str, int] | None = None) -> None:
        """limits: bounds on counters of the scoreboard, as of `Settings.limits`."""
        # Otherwise each counter and histogram has a second series with the time of its first value.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self.service = ServiceCollector(scoreboard or Scoreboard(), limits or {})
        registry.register(self.service)
        self._page = registry
        self._rendering = asyncio.Lock()
        if MULTIPROCESS_DIR in os.environ:
            # By default the id of the process, to which the values belong, is read again for each change of a value:
            # a tenth of the time that the event loop spends on a request.
            values.ValueClass = values.MultiProcessValue(partial(int, os.getpid()))  # type: ignore[no-untyped-call]
            self._page = CollectorRegistry()
            self._page.register(self.service)
            MultiProcessCollector(self._page)  # type: ignore[no-untyped-call]

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"digits_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"digits_{name}", text, labels, registry=registry)

        queue = ("model", "operation")
        self.request_duration = histogram(
            "request_duration_seconds",
            "Time from the arrival of a request to the end of its answer, or the start of a stream, without probes and "
            "scrapes.",
            ("method", "route", "status"),
        )
        self.request_errors = counter(
            "request_errors",
            "Requests answered with an error, without probes and scrapes. Causes: caller, overload, deadline, service.",
            ("code", "cause"),
        )
        self.queue_wait = histogram(
            "queue_wait_seconds", "Time until a worker took the first rows of a request.", queue
        )
        self.batch_duration = histogram("batch_duration_seconds", "Time a worker took for a batch.", queue)
        self.batch_rows = histogram("batch_rows", "Rows of a batch.", queue, ROWS)
        self.queued_rows = gauge("queued_rows", "Rows waiting for a worker.", queue)
        self.images = counter("images", "Images computed for answers.", queue)
        self.reloads = counter("reloads", "Reloads of the models, swapped or refused.", ("outcome",))
        # From 0, so that the first of each is an increase.
        for outcome in ("swapped", "refused"):
            self.reloads.labels(outcome)
        for code, cause in CAUSES.items():
            self.request_errors.labels(code, cause)
        self._request_series: dict[tuple[str, str, int], Histogram] = {}

    def request_ended(self, method: str, route: str | None, status: int, seconds: float, code: str | None) -> None:
        """Record an answer. route: the path template, None without a match; code: the error code to count, if any."""
        key = method if method in METHODS else "other", route or UNMATCHED, status
        if (series := self._request_series.get(key)) is None:
            # Cached: the lookup by labels takes longer than the observation.
            method, route, _ = key
            series = self._request_series[key] = self.request_duration.labels(method, route, str(status))
        series.observe(seconds)
        if code is not None:
            self.failed(code)

    def failed(self, code: str) -> None:
        """Count an error by its code."""
        self.request_errors.labels(code, CAUSES[code]).inc()

    async def page(self) -> bytes:
        """The page that Prometheus reads. One is rendered at a time: it takes ten milliseconds of the interpreter."""
        async with self._rendering:
            return await asyncio.to_thread(generate_latest, self._page)

    def batch_metrics(self, model: str, operation: str) -> "BatchMetrics":
        """The metrics of one queue."""
        return BatchMetrics(self, model, operation)


class BatchMetrics:
    """The metrics of one queue (`inference.batching.Batcher`)."""

    def __init__(self, metrics: Metrics, model: str, operation: str) -> None:
        self._queued = metrics.queued_rows.labels(model, operation)
        self._waited = metrics.queue_wait.labels(model, operation)
        self._seconds = metrics.batch_duration.labels(model, operation)
        self._rows = metrics.batch_rows.labels(model, operation)
        self._images = metrics.images.labels(model, operation)

    def queued(self, rows: int) -> None:
        """The queue grew by `rows`, which may be negative. After a reload two queues share the gauge for a while."""
        self._queued.inc(rows)

    def waited(self, seconds: float) -> None:
        """A worker took the first rows of a job after `seconds`."""
        self._waited.observe(seconds)

    def computed(self, rows: int, seconds: float) -> None:
        """A batch of `rows` took `seconds`."""
        self._rows.observe(rows)
        self._seconds.observe(seconds)

    def answered(self, rows: int) -> None:
        """A job of `rows` has its answer."""
        self._images.inc(rows)


class ServiceCollector(Collector):
    """What is in flight in the whole service, the models it serves, and the resources of its processes."""

    # Counters of the scoreboard. The bound on each, where there is one, is a gauge of its own.
    IN_USE = (
        ("connections", "connections", "Open connections."),
        ("requests", "requests_in_flight", "Requests that were admitted and not yet answered."),
        ("bytes", "body_in_flight_bytes", "Bytes of large bodies that have arrived."),
        ("rows", "rows_in_flight", "Rows that were admitted and not yet computed."),
        (
            "sequential_rows",
            "sequential_rows_in_flight",
            "Rows in flight of sequential models, which have a bound of their own.",
        ),
        ("files", "files_in_flight", "Uploaded files that are decoded or wait for it."),
        ("streams", "streams_in_flight", "Streamed answers that were admitted and have not ended."),
        ("busy", "busy_workers", "Workers that compute a batch."),
        ("busy_sequential", "busy_sequential_workers", "Workers that compute a batch of a sequential model."),
    )
    # The label `process` is the column of the scoreboard, which a process that replaces another one takes over.
    BY_PROCESS = (
        ("connections", "process_connections", "Open connections of a process."),
        ("rows", "process_rows_in_flight", "Rows that a process has admitted and not yet computed."),
        ("busy", "process_busy_workers", "Workers of a process that compute a batch."),
    )
    MODEL = ("model", "family", "digest", "precision", "runtime")

    def __init__(self, scoreboard: Scoreboard, limits: Mapping[str, int]) -> None:
        self._scoreboard = scoreboard
        self.limits = {**limits}  # by counter
        self.ready: Callable[[], bool] = lambda: False
        self.models: Iterable[tuple[str, ...]] = ()  # values of the labels `MODEL`

    def collect(self) -> Iterable[Metric]:
        """Read the values."""
        board = self._scoreboard
        for counter, name, text in self.IN_USE:
            yield _gauge(name, text, board.counter(counter).total)
            if counter in self.limits:
                stem, unit, _ = name.partition("_bytes")
                yield _gauge(f"{stem}_limit{unit}", f"Bound on digits_{name}.", self.limits[counter])
        yield _gauge("processes", "Processes that serve.", board.serving)
        yield _gauge("processes_limit", "Processes that should serve.", board.processes)
        replacements = "Processes that replaced one that ended or hung."
        yield CounterMetricFamily("digits_process_replacements", replacements, board.replacements)
        yield _gauge("ready", "1 while the service is ready.", self.ready())
        refused = board.reload_refused
        yield _gauge("last_reload_successful", "0 from a refused reload to the next one that is not.", not refused)
        models = [dict(zip(self.MODEL, labels, strict=True)) for labels in self.models]
        yield _info("model_info", "1 for each loaded model, with its digest and runtime.", models)
        common = {"version": __version__, "processes": str(board.processes)}
        runtimes = sorted({model["runtime"] for model in models}) or [""]
        builds = [{**common, "runtime": runtime} for runtime in runtimes]
        yield _info("build_info", "1 for each runtime, with the version and the number of processes.", builds)
        for counter, name, text in self.BY_PROCESS:
            family = GaugeMetricFamily(f"digits_{name}", text, labels=["process"])
            for column, value in board.by_column(counter).items():
                family.add_metric([str(column)], value)
            yield family
        yield from process_metrics(board.by_column("pid"))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"digits_{name}", text, float(value))


def _info(name: str, text: str, series: Iterable[dict[str, str]]) -> Metric:
    family = Metric(f"digits_{name}", text, "gauge")
    for labels in series:
        family.add_sample(family.name, labels, 1)
    return family


def process_metrics(pids: Mapping[int, int]) -> list[Metric]:
    """prometheus-client's metrics of a process, summed over processes; of start times, the least.

    pids: by column. The CPU time is also there for each process.
    """
    merged: dict[str, Metric] = {}
    cpu = CounterMetricFamily("digits_process_cpu_seconds", "CPU time of a process.", labels=["process"])
    for column, pid in pids.items():
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            (b,) = metric.samples
            if metric.name == "process_cpu_seconds":
                cpu.add_metric([str(column)], b.value)
            if (first := merged.setdefault(metric.name, metric)) is not metric:
                (a,) = first.samples
                least = metric.name == "process_start_time_seconds"
                first.samples = [a._replace(value=min(a.value, b.value) if least else a.value + b.value)]
    return [cpu, *merged.values()]

"""The metrics of the service.

Labels take values from fixed sets only (route templates, model names, error codes): no request can add a series.

With several processes, prometheus-client keeps the values in the files of `PROMETHEUS_MULTIPROC_DIR`, and a scrape of
any process gives the sums of all, also of those that have ended.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.scoreboard import Scoreboard

# Set before this module is imported, see `app.server.supervisor`.
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UNMATCHED = "unmatched"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry an app, so that two apps in a process share nothing."""

    def __init__(self, scoreboard: Scoreboard | None = None) -> None:
        registry = self.registry = CollectorRegistry()
        self.service = ServiceCollector(scoreboard or Scoreboard())
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
        self.request_seconds = histogram(
            "request_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ("method", "route", "status"),
        )
        self.queue_seconds = histogram("queue_seconds", "Time until a worker took the first rows of a request.", queue)
        self.inference_seconds = histogram("inference_seconds", "Time a worker took for a batch.", queue)
        self.batch_rows = histogram("batch_rows", "Rows of a batch.", queue, ROWS)
        self.queued_rows = gauge("queued_rows", "Rows waiting for a worker.", queue)
        self.images = counter("images", "Images computed for answers.", queue)
        self.rejections = counter("rejections", "Requests answered with an error, by error code.", ("code",))
        self.reloads = counter("reloads", "Reloads of the models, swapped or refused.", ("outcome",))
        for outcome in ("swapped", "refused"):
            self.reloads.labels(outcome)
        self._request_series: dict[tuple[str, str, int], Histogram] = {}

    def request_ended(self, method: str, route: str | None, status: int, seconds: float, code: str | None) -> None:
        """Record an answer. route: the path template, None without a match; code: the error code, if any."""
        key = method if method in METHODS else "other", route or UNMATCHED, status
        if (series := self._request_series.get(key)) is None:
            # Cached: the lookup by labels takes longer than the observation.
            method, route, _ = key
            series = self._request_series[key] = self.request_seconds.labels(method, route, str(status))
        series.observe(seconds)
        if code is not None:
            self.rejections.labels(code).inc()

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
        self._waited = metrics.queue_seconds.labels(model, operation)
        self._seconds = metrics.inference_seconds.labels(model, operation)
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

    GAUGES = (
        ("connections", "connections", "Open connections."),
        ("requests", "requests_in_flight", "Requests that were admitted and not yet answered."),
        ("bytes", "body_bytes_in_flight", "Bytes of large bodies that have arrived."),
        ("rows", "rows_in_flight", "Rows that were admitted and not yet computed."),
        (
            "sequential_rows",
            "sequential_rows_in_flight",
            "The same of sequential models, which have a bound of their own.",
        ),
        ("files", "files_in_flight", "Uploaded files that are decoded or wait for it."),
    )
    MODEL = ("model", "family", "digest", "precision", "runtime")

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self.ready: Callable[[], bool] = lambda: False
        self.models: Iterable[tuple[str, ...]] = ()  # values of the labels `MODEL`

    def collect(self) -> Iterable[Metric]:
        """Read the values."""
        board = self._scoreboard
        for name, metric, text in self.GAUGES:
            yield GaugeMetricFamily(f"digits_{metric}", text, board.counter(name).total)
        yield GaugeMetricFamily("digits_processes", "Processes of the service.", len(board.pids))
        yield GaugeMetricFamily("digits_ready", "1 while the service is ready.", float(self.ready()))
        info = Metric("digits_model_info", "1 for each loaded model.", "gauge")
        for labels in self.models:
            info.add_sample(info.name, dict(zip(self.MODEL, labels, strict=True)), 1)
        yield info
        yield from process_metrics(board.pids)


def process_metrics(pids: Iterable[int]) -> list[Metric]:
    """prometheus-client's metrics of a process, summed over processes; of times and limits, the least."""
    merged: dict[str, Metric] = {}
    for pid in pids:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            if (first := merged.setdefault(metric.name, metric)) is not metric:
                (a,), (b,) = first.samples, metric.samples
                least = metric.name in {"process_start_time_seconds", "process_max_fds"}
                first.samples = [a._replace(value=min(a.value, b.value) if least else a.value + b.value)]
    return [*merged.values()]

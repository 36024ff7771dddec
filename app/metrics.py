"""The metrics of the service.

Labels take values from fixed sets only (route templates, model names, error codes): no request can add a series.

With several processes, prometheus-client keeps the values in the files of `PROMETHEUS_MULTIPROC_DIR`, and a scrape of
any process gives the sums of all, also of those that have ended.
"""

import asyncio
import os
from collections.abc import Mapping
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from app.errors import CAUSES
from app.scoreboard import Scoreboard
from app.service_metrics import ServiceCollector

# Set before this module is imported, see `app.server.environment`.
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UNMATCHED = "unmatched"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry an app, so that two apps in a process share nothing."""

    def __init__(
        self,
        scoreboard: Scoreboard | None = None,
        limits: Mapping[str, int] | None = None,
        grpc_port: int | None = None,
    ) -> None:
        """limits: bounds on counters of the scoreboard, as in `Settings.limits`. grpc_port: None without gRPC."""
        # Otherwise each counter and histogram has a second series with the time of its first value.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self.service = ServiceCollector(scoreboard or Scoreboard(), limits or {}, grpc_port)
        registry.register(self.service)
        self._page = _all_processes(self.service) if MULTIPROCESS_DIR in os.environ else registry
        self._rendering = asyncio.Lock()
        self._queues = QueueMetrics(registry)
        self.request_duration = _histogram(
            registry,
            "request_duration_seconds",
            "Time from the arrival of a request to the end of its answer, or the start of a stream, without probes and "
            "scrapes.",
            ("method", "route", "status"),
        )
        self._request_series: dict[tuple[str, str, int], Histogram] = {}
        self.request_errors = _counter(
            registry,
            "request_errors",
            "Requests answered with an error, without probes and scrapes. Causes: caller, overload, deadline, service.",
            ("code", "cause"),
        )
        self.reloads = _counter(registry, "reloads", "Reloads of the models, swapped or refused.", ("outcome",))
        # From 0, so that the first of each is an increase.
        for outcome in ("swapped", "refused"):
            self.reloads.labels(outcome)
        for code, cause in CAUSES.items():
            self.request_errors.labels(code, cause)

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
        """The text that Prometheus scrapes. One is rendered at a time: it takes ten milliseconds of the interpreter."""
        async with self._rendering:
            return await asyncio.to_thread(generate_latest, self._page)

    def batch_metrics(self, model: str, operation: str) -> "BatchMetrics":
        """The metrics of one queue."""
        return BatchMetrics(self._queues, model, operation)


class QueueMetrics:
    """The metrics of all queues, with the labels `model` and `operation`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("model", "operation")
        waited = "Time until a worker took the first rows of a request."
        self.wait = _histogram(registry, "queue_wait_seconds", waited, labels)
        self.batch_duration = _histogram(registry, "batch_duration_seconds", "Time a worker took for a batch.", labels)
        self.batch_rows = _histogram(registry, "batch_rows", "Rows of a batch.", labels, ROWS)
        self.queued_rows = Gauge(
            "digits_queued_rows", "Rows waiting for a worker.", labels, registry=registry, multiprocess_mode="livesum"
        )
        self.images = _counter(registry, "images", "Images computed for answers.", labels)


class BatchMetrics:
    """The metrics of one queue (`inference.batching.Batcher`)."""

    def __init__(self, queues: "QueueMetrics", model: str, operation: str) -> None:
        self._queued = queues.queued_rows.labels(model, operation)
        self._waited = queues.wait.labels(model, operation)
        self._seconds = queues.batch_duration.labels(model, operation)
        self._rows = queues.batch_rows.labels(model, operation)
        self._images = queues.images.labels(model, operation)

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


def _histogram(
    registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS
) -> Histogram:
    return Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=registry)


def _counter(registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]) -> Counter:
    return Counter(f"digits_{name}", text, labels, registry=registry)


def _all_processes(service: ServiceCollector) -> CollectorRegistry:
    """A registry of the metrics of all processes: those in files, and those on the scoreboard."""
    # By default prometheus-client reads the process id on each change of a value, which takes a tenth of the time that
    # the event loop spends on a request.
    values.ValueClass = values.MultiProcessValue(partial(int, os.getpid()))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(service)
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry

"""Every metric by name. Knows nothing of what it counts.

Labels take values from fixed sets only (route templates, model names, error codes): no request can
add a series.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UNMATCHED = "unmatched"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry an app, so that two apps in a process share nothing."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.request_seconds = Histogram(
            "digits_request_seconds",
            "Time from a request's arrival to the end of its answer.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "digits_queue_seconds",
            "Time a caller's first rows waited for a worker.",
            ("model", "capability"),
            buckets=SECONDS,
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "digits_inference_seconds",
            "Time of one forward pass.",
            ("model", "capability"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "digits_batch_rows",
            "Rows of one forward pass.",
            ("model", "capability"),
            buckets=ROWS,
            registry=registry,
        )
        self.queued_rows = Gauge(
            "digits_queued_rows", "Rows waiting for a worker.", ("model", "capability"), registry=registry
        )
        self.requests_in_flight = Gauge(
            "digits_requests_in_flight", "Requests that were admitted and have no answer yet.", registry=registry
        )
        self.body_bytes_in_flight = Gauge(
            "digits_body_bytes_in_flight", "Bytes that the bodies of those requests may have.", registry=registry
        )
        self.rows_in_flight = Gauge(
            "digits_rows_in_flight", "Rows that were admitted and are not computed yet.", registry=registry
        )
        self.images = Counter(
            "digits_images", "Images that were computed for an answer.", ("model", "operation"), registry=registry
        )
        self.rejections = Counter(
            "digits_rejections", "Requests answered with an error, by its code.", ("code",), registry=registry
        )
        self.model_info = Gauge(
            "digits_model_info",
            "1 for each model that serves.",
            ("model", "family", "digest", "precision", "runtime"),
            registry=registry,
        )
        self.reloads = Counter(
            "digits_reloads",
            "Reloads of the models: swapped, or refused as a checkpoint was bad.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("swapped", "refused"):
            self.reloads.labels(outcome)
        self.ready = Gauge("digits_ready", "1 while the service takes requests.", registry=registry)
        self._request_series: dict[tuple[str, str, int], Histogram] = {}

    def request_ended(self, method: str, route: str | None, status: int, seconds: float, code: str | None) -> None:
        """A request had its answer; route: the template that matched, if one did; code: of its error, if it had one."""
        key = method if method in METHODS else "other", route or UNMATCHED, status
        if (series := self._request_series.get(key)) is None:
            # Kept, as finding a series by its labels takes longer than adding to it. There are few.
            method, route, _ = key
            series = self._request_series[key] = self.request_seconds.labels(method, route, str(status))
        series.observe(seconds)
        if code is not None:
            self.rejections.labels(code).inc()

    def batch_observer(self, model: str, capability: str) -> "BatchObserver":
        """What a network's queue reports to."""
        return BatchObserver(self, model, capability)


class BatchObserver:
    """The metrics of one network's queue (`inference.batching.Observer`)."""

    def __init__(self, metrics: Metrics, model: str, capability: str) -> None:
        self._queued = metrics.queued_rows.labels(model, capability)
        self._rows_queued = 0
        self._waited = metrics.queue_seconds.labels(model, capability)
        self._inference = metrics.inference_seconds.labels(model, capability)
        self._rows = metrics.batch_rows.labels(model, capability)

    def queued(self, rows: int) -> None:
        """So many rows wait now."""
        # By how much it changed: after a reload two queues of a name have rows for a while.
        self._queued.inc(rows - self._rows_queued)
        self._rows_queued = rows

    def waited(self, seconds: float) -> None:
        """A caller's first rows waited so long for a worker."""
        self._waited.observe(seconds)

    def computed(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""
        self._rows.observe(rows)
        self._inference.observe(seconds)

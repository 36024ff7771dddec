"""The metrics of the service.

Labels take values from fixed sets only (route templates, model names, error codes): no request can add a series.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

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

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"digits_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"digits_{name}", text, labels, registry=registry)

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
        self.requests_in_flight = gauge("requests_in_flight", "Requests that were admitted and not yet answered.")
        self.body_bytes_in_flight = gauge("body_bytes_in_flight", "Bytes reserved for the bodies of those requests.")
        self.rows_in_flight = gauge("rows_in_flight", "Rows that were admitted and not yet computed.")
        self.images = counter("images", "Images computed for answers.", queue)
        self.rejections = counter("rejections", "Requests answered with an error, by error code.", ("code",))
        self.model_info = gauge(
            "model_info", "1 for each loaded model.", ("model", "family", "digest", "precision", "runtime")
        )
        self.reloads = counter("reloads", "Reloads of the models, swapped or refused.", ("outcome",))
        for outcome in ("swapped", "refused"):
            self.reloads.labels(outcome)
        self.ready = gauge("ready", "1 while the service is ready.")
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

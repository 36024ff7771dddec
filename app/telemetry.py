"""OpenTelemetry traces, which need the extra `tracing`: a span for each request, with its steps below it.

FastAPI makes the span of a request over HTTP and reads the `traceparent` of the caller; over gRPC `Tracing.rpc` does.
OpenTelemetry's own variables configure export, sampling and the name of the service, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from time import monotonic_ns, time_ns

from fastapi.telemetry import TelemetryConfig
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)

from app import __version__
from app.api.admission import OUTSIDE_ADMISSION
from app.trace import Trace

# Without a limit, the last export would wait for half a minute for a collector that does not respond.
CLOSE_S = 1.0
# Statuses of gRPC that are errors of the server, by the semantic conventions of OpenTelemetry.
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Tracing:
    """The export of the traces of one app. Its thread and its queue are bounded: spans that do not fit are dropped."""

    def __init__(self) -> None:
        defaults = Resource.create({SERVICE_NAME: "digits", SERVICE_VERSION: __version__})
        resource = defaults.merge(OTELResourceDetector().detect())
        # Its own, not the global provider, so that two apps in a process share nothing.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("digits", __version__)

    @property
    def telemetry(self) -> TelemetryConfig:
        """The configuration for FastAPI: one span a request, none for probes and scrapes."""
        return {
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope.get("path") in OUTSIDE_ADMISSION,
        }

    @contextmanager
    def rpc(self, method: str, metadata: Mapping[str, str]) -> Iterator[None]:
        """Make a span for a gRPC call the current one. method: as in `package.Service/Method`."""
        with self._tracer.start_as_current_span(
            method,
            extract(metadata),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
            record_exception=False,
            set_status_on_exception=False,
        ):
            yield

    def rpc_ended(self, status: str) -> None:
        """Add the status, as in `OK`, to the span of the current RPC."""
        span = get_current_span()
        span.set_attribute("rpc.response.status_code", status)
        if status in SERVER_ERRORS:
            span.set_attribute("error.type", status)
            span.set_status(StatusCode.ERROR)

    def trace(self, request_id: str | None) -> Trace | None:
        """The trace of the current request, None if it is not sampled. request_id: the caller's, if any."""
        span = get_current_span()
        if not span.is_recording():
            return None
        trace = SpanTrace(self._tracer, span)
        span.set_attribute("digits.request_id", request_id or trace.id)
        return trace

    def close(self) -> None:
        """Export what is queued, for at most `CLOSE_S` seconds."""
        closing = Thread(target=self._provider.shutdown, name="tracing_close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class SpanTrace:
    """Steps as spans below the span of a request."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._context = set_span_in_context(span)
        self._epoch_ns = time_ns() - monotonic_ns()  # spans have times of the wall clock
        self.id = format_trace_id(span.get_span_context().trace_id)

    def step(self, name: str, started: float, ended: float, **attributes: str | int) -> None:
        """A span that has ended."""
        start_ns, end_ns = (self._epoch_ns + int(seconds * 1e9) for seconds in (started, ended))
        named = {f"digits.{key}": value for key, value in attributes.items()}
        self._tracer.start_span(name, self._context, attributes=named, start_time=start_ns).end(end_ns)

"""Who may have a request in the service: counted before its body is read. Knows no operation."""

import json
from random import Random

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MAX_RETRY_AFTER_S, PHRASES, PROBLEM_JSON, Overloaded
from app.metrics import Metrics
from app.settings import Settings

# What tells how the service does must answer above all when it does badly.
ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/metrics"})


class RequestAdmission:
    """Admits a request or refuses it at once: so many requests, and so many bytes of their bodies, are in flight.

    A refusal is written here, from bytes made before, as it must cost next to nothing: under overload there are
    more of them than answers. A body counts as long as it says it is, one that does not say as the longest that is
    read.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._max_requests = settings.max_requests
        self._max_bytes = settings.max_bytes_in_flight
        self._longest = settings.max_upload_bytes
        self._requests = 0
        self._bytes = 0
        self._jitter = Random()  # noqa: S311
        metrics.requests_in_flight.set_function(lambda: self._requests)
        metrics.body_bytes_in_flight.set_function(lambda: self._bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; anything but HTTP passes untouched."""
        if scope["type"] != "http" or scope["path"] in ALWAYS_ADMITTED:
            await self._app(scope, receive, send)
            return
        size = body_bytes(scope, self._longest)
        if self._requests >= self._max_requests or self._bytes + size > self._max_bytes:
            await self._refuse(scope, send)
            return
        self._requests += 1
        self._bytes += size
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1
            self._bytes -= size

    async def _refuse(self, scope: Scope, send: Send) -> None:
        scope["problem_code"] = Overloaded.code  # for the metrics
        headers = self._jitter.choice(REFUSAL_HEADERS)
        await send({"type": "http.response.start", "status": Overloaded.status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": REFUSAL % scope["request_id"].encode()})


def body_bytes(scope: Scope, longest: int) -> int:
    """Bytes of the body that may be read: at most `longest`, which is also for one that does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return min(int(value), longest) if value.isdigit() and len(value) < 16 else longest
        if name == b"transfer-encoding":
            return longest
    return 0


def refusal() -> bytes:
    """The problem that a refused caller is told, as RFC 9457 has it, but for the id of its request."""
    body = {
        "type": "about:blank",
        "title": PHRASES[Overloaded.status],
        "status": Overloaded.status,
        "detail": "too many requests are being served; try again later",
        "code": Overloaded.code,
        "request_id": "%b",
    }
    return json.dumps(body, separators=(",", ":")).encode()


REFUSAL = refusal()
REFUSAL_HEADERS = [
    [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(REFUSAL % (b"0" * 32))).encode()),
        (b"retry-after", str(seconds).encode()),
    ]
    for seconds in range(1, MAX_RETRY_AFTER_S + 1)
]

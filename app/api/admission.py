"""Who may have a request in the service: counted before its body is read. Knows no operation."""

import json
from collections.abc import Callable
from random import choice

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware import new_request_id
from app.errors import MAX_RETRY_AFTER_S, PHRASES, PROBLEM_JSON, Overloaded
from app.metrics import Metrics
from app.settings import Settings

# What tells how the service does must answer above all when it does badly.
ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/metrics"})

JSON = b"application/json"

Headers = list[tuple[bytes, bytes]]
# From a request to what it is refused with: status, headers and body; None where it is not.
Refuse = Callable[[Scope], tuple[int, Headers, bytes] | None]


class Admission:
    """So many requests, and so many bytes of their bodies, are in flight; who comes beyond that is refused.

    A body counts as long as it says it is, one that does not say as the longest that is read. Refusals are made
    from bytes that were there before, as one must cost next to nothing: under overload there are more of them than
    answers.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._max_requests = settings.max_requests
        self._max_bytes = settings.max_bytes_in_flight
        self._longest = settings.max_upload_bytes
        self._longest_json = settings.max_json_bytes
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0
        metrics.requests_in_flight.set_function(lambda: self._requests)
        metrics.body_bytes_in_flight.set_function(lambda: self._bytes)

    def has_room(self, scope: Scope) -> bool:
        """Whether this request may be in flight, too."""
        if scope["path"] in ALWAYS_ADMITTED:
            return True
        if self._requests >= self._max_requests:
            return False
        return self._bytes + self._body_bytes(scope) <= self._max_bytes

    def enter(self, scope: Scope) -> int:
        """A request is in flight; the bytes it holds, to be given back to `leave`."""
        size = self._body_bytes(scope)
        self._requests += 1
        self._bytes += size
        return size

    def _body_bytes(self, scope: Scope) -> int:
        """Bytes of the body that may be read, of which more are refused: fewer of JSON than of uploads."""
        size, longest = 0, self._longest
        for name, value in scope["headers"]:
            if name == b"content-length":
                size = int(value) if value.isdigit() and len(value) < 16 else self._longest
            elif name == b"transfer-encoding":
                size = self._longest
            elif name == b"content-type" and value[: len(JSON)].lower() == JSON:
                longest = self._longest_json
        return min(size, longest)

    def leave(self, size: int) -> None:
        """A request that held so many bytes has ended."""
        self._requests -= 1
        self._bytes -= size

    def refusal(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        """For a server, before it makes a task for a request: what it is refused with, counted here; None: nothing.

        Most of a refusal's cost is that of its way through an app.
        """
        if self.has_room(scope) or scope["method"] == "HEAD":
            return None
        self._metrics.request_ended(scope["method"], None, Overloaded.status, 0.0, Overloaded.code)
        request_id = new_request_id().encode()
        return Overloaded.status, [*choice(HEADERS), (b"x-request-id", request_id)], BODY % request_id  # noqa: S311


class RequestAdmission:
    """Refuses what `Admission` has no room for: where the server did not, and where an answer has more headers."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; anything but HTTP passes untouched."""
        if scope["type"] != "http" or scope["path"] in ALWAYS_ADMITTED:
            await self._app(scope, receive, send)
            return
        if not self._admission.has_room(scope):
            await self._refuse(scope, send)
            return
        size = self._admission.enter(scope)
        try:
            await self._app(scope, receive, send)
        finally:
            self._admission.leave(size)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        scope["problem_code"] = Overloaded.code  # for the metrics
        headers = choice(HEADERS)  # noqa: S311
        await send({"type": "http.response.start", "status": Overloaded.status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": BODY % scope["request_id"].encode()})


def body() -> bytes:
    """The problem that a refused caller is told, as RFC 9457 has it, but for the id of its request."""
    problem = {
        "type": "about:blank",
        "title": PHRASES[Overloaded.status],
        "status": Overloaded.status,
        "detail": "too many requests are being served; try again later",
        "code": Overloaded.code,
        "request_id": "%b",
    }
    return json.dumps(problem, separators=(",", ":")).encode()


BODY = body()
# One for each time to come back; a caller draws one of them.
HEADERS: list[Headers] = [
    [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(BODY % (b"0" * 32))).encode()),
        (b"retry-after", str(seconds).encode()),
    ]
    for seconds in range(1, MAX_RETRY_AFTER_S + 1)
]

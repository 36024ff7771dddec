"""ASGI middleware around every request: its id, metrics, CORS, limits and key, in this order.

Written against ASGI: Starlette's `BaseHTTPMiddleware` puts a task and a stream between the server and every answer.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import re
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.admission import OUTSIDE_ADMISSION, PROBES
from app.errors import (
    BadRequest,
    Draining,
    HeadersTooLarge,
    Misdirected,
    OutOfMemory,
    ServiceError,
    Unauthorized,
    internal_error,
    problem,
    problem_of,
)
from app.logs import REQUEST_ID, log_access
from app.metrics import Metrics
from app.trace import TRACE, Trace

log = logging.getLogger(__name__)

ID_HEADERS = frozenset({b"x-request-id", b"traceparent"})
CALLERS_ID = re.compile(rb"[0-9A-Za-z._-]{1,64}")
# W3C Trace Context, section 3.2: version, trace id, parent id and flags.
TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
# The pages have no key either: a browser cannot send one before they are loaded.
DOCUMENTATION = frozenset({"/", "/docs", "/openapi.json"})

# The trace of the current request, from the id that its caller gave it; None if it is not sampled.
FindTrace = Callable[[str | None], Trace | None]


class RequestContext:
    """Gives each request an id (`X-Request-Id` in its response), and records metrics and the access log.

    The id is the caller's `X-Request-Id` or the trace id of its `traceparent`, if well-formed, so that the logs of both
    can be joined; else the trace id of a traced request; else random.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        access_log: bool,
        trace: FindTrace | None = None,
    ) -> None:
        """trace: finds the trace of the current request; None if requests are not traced."""
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; anything but HTTP passes unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        of_server = scope
        method = scope["method"]
        if method == "HEAD":
            # Handled as GET; the server, which keeps its own scope, drops the content (RFC 9110, section 9.3.2).
            scope = {**scope, "method": "GET"}
        request_id = scope["request_id"] = begin_request(scope["headers"], self._trace)
        scope["arrived_at"] = started = monotonic()
        scope["answer_status"] = 0  # until an answer begins

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["answer_status"] = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            status = scope["answer_status"]
            # `CrossOrigin` refuses preflight requests without the scope, and is the only one to do so.
            code = scope.get("problem_code") or (BadRequest.code if status >= HTTPStatus.BAD_REQUEST else None)
            if (refused := of_server.get("refused")) is not None:  # the server refused the rest of the body
                status, code = refused.status, refused.code
            seconds = monotonic() - started
            # Probes and scrapes would hide that requests of callers fail or are slow.
            if scope["path"] not in OUTSIDE_ADMISSION:
                # The duration of the rest of a stream depends on its reader.
                measured = scope.get("first_piece_at", started + seconds) - started
                self._metrics.request_ended(method, getattr(scope.get("route"), "path", None), status, measured, code)
            if self._access_log:
                log_access(method, scope["path"], status, seconds, code)


def begin_request(headers: list[tuple[bytes, bytes]], find_trace: FindTrace | None) -> str:
    """Set the request id and the trace of the current context. Returns the id."""
    request_id = id_of_caller(headers)
    if find_trace is not None:
        trace = find_trace(request_id)
        TRACE.set(trace)  # also None: a pipelined request inherits the context of the previous one
        request_id = request_id or (trace.id if trace is not None else None)
    # Not the system's random source, which costs a system call: an id is not a secret.
    request_id = request_id or f"{random.getrandbits(128):032x}"
    REQUEST_ID.set(request_id)
    return request_id


def id_of_caller(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The id in the headers of a request, None if there is none that is well-formed."""
    found = {name: value for name, value in headers if name in ID_HEADERS}
    if not found:
        return None
    if CALLERS_ID.fullmatch(own := found.get(b"x-request-id", b"")):
        return own.decode()
    trace = TRACEPARENT.fullmatch(found.get(b"traceparent", b""))
    return trace and trace[1].decode()


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, with a problem document for a refused preflight request."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        allowed = [self.preflight_headers[f"Access-Control-Allow-{what}"] for what in ("Methods", "Headers")]
        detail = "web pages may use listed origins only, the methods {}, and the headers {}".format(*allowed)
        request = Request({"type": "http", "request_id": REQUEST_ID.get()})
        return problem(request, BadRequest.status, BadRequest.code, detail, headers=headers)


class Guard:
    """Refuses requests with too many headers, for another host or without the API key, and responds to all errors."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...], key: str | None) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_headers(scope)
            _check_host(scope, self._allowed_hosts)
            if self._digest is not None and not is_public(scope["path"]):
                check_key([value for name, value in scope["headers"] if name == b"authorization"], self._digest)
            await self._app(scope, receive, send)
        except BaseException as error:
            answer = answer_to(error)
            if answer is None or scope["answer_status"]:  # once an answer has begun, only the server can end it
                raise
            await problem_of(Request(scope), answer)(scope, receive, send)


def answer_to(error: BaseException) -> ServiceError | None:
    """The error to respond with, None for an exception that must propagate."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncio.CancelledError):  # the grace period of the server is over
        return Draining()
    if not isinstance(error, Exception):
        return None
    log.error("the request failed", exc_info=error)
    if isinstance(error, MemoryError):
        return OutOfMemory()
    return internal_error()


def _check_headers(scope: Scope) -> None:
    headers, size = scope["headers"], len(scope["raw_path"]) + len(scope["query_string"])
    for name, value in headers:
        size += len(name) + len(value)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(
            f"a request is limited to {MAX_HEADERS} headers, and {MAX_HEADER_BYTES} bytes of path, query and headers"
        )


def _check_host(scope: Scope, allowed: tuple[str, ...]) -> None:
    """Refuse other host names, against DNS rebinding.

    Not Starlette's TrustedHostMiddleware: it cuts the port at the first colon, which breaks IPv6 addresses, and answers
    in plain text.
    """
    if not allowed or scope["path"] in PROBES:
        return
    value = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    host = value[: value.index("]") + 1] if value.startswith("[") and "]" in value else value.partition(":")[0]
    if host not in allowed and (
        host.startswith(".") or not any(host.endswith(name[1:]) for name in allowed if name.startswith("*."))
    ):
        raise Misdirected("the host of the request is not served here")


def check_key(values: list[bytes], expected: bytes) -> None:
    """Refuse a request whose `Authorization` is not one API key with this digest. Raises Unauthorized."""
    scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    # Digests are compared in constant time, so that the time reveals neither length nor prefix of the key.
    matches = hmac.compare_digest(hashlib.sha256(key.strip()).digest(), expected)
    if scheme.lower() != b"bearer" or not matches:
        raise Unauthorized("the service requires a key; send it as Authorization: Bearer")


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PROBES or path in DOCUMENTATION or path.startswith(("/docs/", "/studio/"))

"""ASGI middleware around every request: its id, limits, key and metrics.

Written against ASGI: Starlette's `BaseHTTPMiddleware` puts a task and a stream between the server and every answer.
"""

import asyncio
import hashlib
import hmac
import logging
import random
from time import monotonic

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.admission import PROBES
from app.errors import (
    Draining,
    HeadersTooLarge,
    Misdirected,
    OutOfMemory,
    ServiceError,
    Unauthorized,
    problem_of,
)
from app.metrics import Metrics

log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
# The documentation has no key either: a browser cannot send one before the page is loaded.
DOCUMENTATION = frozenset({"/", "/docs", "/openapi.json"})


class RequestContext:
    """Gives each request an id (`X-Request-Id` in its answer), records metrics, and answers for unexpected errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics, allowed_hosts: tuple[str, ...]) -> None:
        self._app = app
        self._metrics = metrics
        self._allowed_hosts = allowed_hosts

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
        # An id is not a secret: system randomness would cost a system call.
        scope["request_id"] = request_id = f"{random.getrandbits(128):032x}"
        scope["arrived_at"] = started = monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            try:
                _check_headers(scope)
                _check_host(scope, self._allowed_hosts)
                await self._app(scope, receive, send_with_id)
            except BaseException as error:
                answer = _answer_to(error, request_id)
                if answer is None or status:  # once an answer has begun, only the server can end it
                    raise
                await problem_of(Request(scope), answer)(scope, receive, send_with_id)
        finally:
            route, code = getattr(scope.get("route"), "path", None), scope.get("problem_code")
            if (refused := of_server.get("refused")) is not None:  # by the server, while the app waited for the body
                status, code = refused.status, refused.code
            self._metrics.request_ended(method, route, status, monotonic() - started, code)


def _answer_to(error: BaseException, request_id: str) -> ServiceError | None:
    """The error to answer with, None for an exception that must pass."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncio.CancelledError):  # the grace period of the server is over
        return Draining()
    if not isinstance(error, Exception):
        return None
    log.error("request %s failed", request_id, exc_info=error)
    if isinstance(error, MemoryError):
        return OutOfMemory()
    return ServiceError("the service failed; its log has the details under the request id")


def _check_headers(scope: Scope) -> None:
    headers = scope["headers"]
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
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


class KeyCheck:
    """Refuses requests without the API key, if the service has one."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if self._digest is not None and scope["type"] == "http" and not is_public(scope["path"]):
            values = [value for name, value in scope["headers"] if name == b"authorization"]
            scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
            # Digests are compared in constant time, so that the time reveals neither length nor prefix of the key.
            matches = hmac.compare_digest(hashlib.sha256(key.strip()).digest(), self._digest)
            if scheme.lower() != b"bearer" or not matches:
                refusal = Unauthorized("the service requires a key; send it as Authorization: Bearer")
                await problem_of(Request(scope), refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PROBES or path in DOCUMENTATION or path.startswith("/docs/")

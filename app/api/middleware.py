"""Around every request: an id, bounded headers, its time, and its line in the metrics. Knows no operation."""

import asyncio
import logging
import random
from time import monotonic

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.hosts import Hosts
from app.errors import Draining, HeadersTooLarge, Misdirected, OutOfMemory, ServiceError, problem_of
from app.metrics import Metrics

log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024


class RequestContext:
    """Gives each request an id (`X-Request-Id` in its answer), counts and times it, and answers for faults.

    Written against ASGI itself: a Starlette `BaseHTTPMiddleware` would put a task and a stream of its own
    between the server and every answer.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # As GET, and the server leaves the content out (RFC 9110, section 9.3.2).
            scope = {**scope, "method": "GET"}
        scope["request_id"] = request_id = new_request_id()
        scope["arrived_at"] = started = monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            check_headers(scope)
            self._hosts.check(scope)
            await self._app(scope, receive, send_with_id)
        except (HeadersTooLarge, Misdirected) as error:
            await problem_of(Request(scope), error)(scope, receive, send_with_id)
        except MemoryError as error:
            log.error("request %s: no memory", request_id, exc_info=error)
            if status:
                raise
            full = OutOfMemory("there was no memory for this request; ask for less or later")
            await problem_of(Request(scope), full)(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # The server's grace period is over; whoever waits is told to come back.
            if status:
                raise
            over = Draining("the service is shutting down")
            await problem_of(Request(scope), over)(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if status:  # half of an answer is out: only the server can end it, by closing the connection
                raise
            fault = ServiceError("the service failed; its log has the fault under the request id")
            await problem_of(Request(scope), fault)(scope, receive, send_with_id)
        finally:
            route, code = getattr(scope.get("route"), "path", None), scope.get("problem_code")
            if (refused := scope.get("refused")) is not None:  # by the server, which had no whole request to pass on
                status, code = refused.status, refused.code
            self._metrics.request_ended(method, route, status, monotonic() - started, code)


def new_request_id() -> str:
    """32 hexadecimal digits."""
    # An id is no secret: drawn without asking the system for randomness, which lets go of the interpreter.
    return f"{random.getrandbits(128):032x}"


def check_headers(scope: Scope) -> None:
    """Raises HeadersTooLarge over 100 headers or 32 KiB of them.

    The protocol's own bound is there for what never becomes a request; this one answers as the app does.
    """
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"a request has at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them")

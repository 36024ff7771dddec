"""Admission: bounds on the requests in flight and on the bytes of their bodies, over all processes.

Only received bytes count, so that a caller that declares a body without sending it takes nothing from others.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded
from app.scoreboard import Scoreboard
from app.settings import Settings

# Probes need no key and may use any Host. Probes and scrapes bypass admission, as they matter most under overload.
PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
OUTSIDE_ADMISSION = PROBES | {"/metrics"}
# Bytes of each body that are not counted, so that small bodies are admitted beside large ones.
UNCOUNTED_BYTES = 16 * 1024


class Admission:
    """Refuses requests over the bounds.

    A request counts from the end of its body to the end of its answer. If there are too many bytes, a process refuses
    its incomplete bodies, the oldest first.
    """

    def __init__(self, app: ASGIApp, settings: Settings, scoreboard: Scoreboard) -> None:
        self._app = app
        self._max_requests = settings.max_requests
        self._max_bytes = settings.max_bytes_in_flight
        self._requests = scoreboard.counter("requests")
        self._bytes = scoreboard.counter("bytes")
        self._incomplete: dict[_Body, None] = {}  # bodies that count and have not ended, the oldest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http" or scope["path"] in OUTSIDE_ADMISSION:
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive)
        try:
            if scope["method"] == "POST":
                self.check_requests()
            else:  # no operation reads its body
                self.end(body)
            await self._app(scope, body.receive, send)
        finally:
            self.release(body)

    def check_requests(self) -> None:
        """Raises Overloaded if no more requests are admitted."""
        if self._requests.total >= self._max_requests:
            raise Overloaded("too many requests are in flight; retry later")

    def count(self, body: "_Body", size: int) -> None:
        """Count bytes of a body. Raises Overloaded if no older body can make room for it."""
        self._bytes.add(size)
        body.counted += size
        self._incomplete[body] = None
        while self._bytes.total > self._max_bytes:
            oldest = next(iter(self._incomplete))
            if oldest is body:
                raise too_many_bytes()
            self._forget(oldest)
            oldest.refuse()

    def end(self, body: "_Body") -> None:
        """Count the request of a body that is complete. Raises Overloaded."""
        self._incomplete.pop(body, None)
        self.check_requests()
        self._requests.add(1)
        body.is_admitted = True

    def release(self, body: "_Body") -> None:
        """Release what a body counts for. Its request has ended."""
        self._forget(body)
        self._requests.add(-body.is_admitted)

    def _forget(self, body: "_Body") -> None:
        self._incomplete.pop(body, None)
        self._bytes.add(-body.counted)
        body.counted = 0


def too_many_bytes() -> Overloaded:
    """The error of a body that is refused."""
    return Overloaded("too many bytes are in flight; retry later")


class _Body:
    """The body of a request as it arrives."""

    def __init__(self, admission: Admission, receive: Receive) -> None:
        self._admission = admission
        self._receive = receive
        self._size = 0
        self._waiting: asyncio.Task[object] | None = None
        self._refused = False
        self.counted = 0
        self.is_admitted = False

    async def receive(self) -> Message:
        """The next ASGI message. Raises Overloaded."""
        if self._refused:
            raise too_many_bytes()
        self._waiting = asyncio.current_task()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._refused or (self._waiting is not None and self._waiting.uncancel()):
                raise
            raise too_many_bytes() from None
        finally:
            self._waiting = None
        if message["type"] == "http.request" and not self.is_admitted:
            before, self._size = self._size, self._size + len(message.get("body", b""))
            if self._size > UNCOUNTED_BYTES:
                self._admission.count(self, self._size - max(before, UNCOUNTED_BYTES))
            if not message.get("more_body", False):
                self._admission.end(self)
        return message

    def refuse(self) -> None:
        """Interrupt the wait for the rest of the body."""
        self._refused = True
        if self._waiting is not None:
            self._waiting.cancel()

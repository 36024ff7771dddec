"""uvicorn's HTTP protocol over httptools, with bounds on bytes, times and connections. Knows nothing of operations.

httptools, llhttp in C, parses a request several times as fast as h11 does, and bounds nothing: it would gather
a header without an end for ever, and begin thousands of pipelined requests out of one read. uvicorn waits for ever,
too: for the rest of a request, and for a caller to take its answer.

A caller that closes its half of a connection is taken to have gone: a FIN says no more than that, and rows that
nobody waits for are not computed.
"""

import asyncio
import logging
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any, ClassVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.middleware import MAX_HEADER_BYTES
from app.api.middleware import NEVER_REFUSED as ALWAYS_ADMITTED
from app.backlog import Backlog, Held
from app.heads import checked_target
from app.outlet import Outlet
from app.refusals import LATE, MALFORMED, TOO_LARGE, Refusal, busy

log = logging.getLogger(__name__)

# Twice what the app admits, so that a request which is a little over still gets the app's own answer.
MAX_UNFINISHED_BYTES = 2 * MAX_HEADER_BYTES
# Bytes given to the parser at once, so that what it holds and what it begins is known to within so many.
SLICE = 4096
# How long, and how much, a caller may still send that is answered for good. Closing at once, with bytes unread,
# would take the answer back.
LINGER_S, LINGER_BYTES = 2, 4 * 2**20
# What an answered request may still send of its body before its connection is worth less than those bytes.
MAX_REST_BYTES = 2**20
# Connections beyond the bound, which may ask how the service does and are else told that they are too many; those
# beyond these are closed without a word. They have so long to ask, as others want their places.
SPARE_CONNECTIONS, SPARE_S = 64, 1.0


@dataclass(frozen=True)
class Limits:
    """What one process grants its callers.

    receive_timeout_s: from the first byte of a request to its last one; for a new connection, to the first.
    max_connections: at the same time; the next ones are refused.
    """

    receive_timeout_s: float = 10
    max_connections: int = 2048


class Deaf(Exception):
    """Bytes came, in one read, behind the last ones that are heard."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses what never becomes whole, and parses pipelined requests one ahead of their turn, or `SLICE` bytes.

    A request line with its headers, the head of a chunk, or trailers may have `MAX_UNFINISHED_BYTES` bytes.
    One timer a connection looks, at least once in `receive_timeout_s`, whether anything is overdue; requests only
    move the time that something is due at.
    """

    limits: ClassVar[Limits] = Limits()
    all_held: ClassVar[Held] = Held()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unfinished = 0  # bytes since the parser last had something whole: headers, a piece of body, a message
        self._rest = 0  # bytes of a body that came after its answer
        self._receiving = False  # a request has begun and is not whole
        self._in_body = False
        self._backlog = Backlog(self.all_held)
        self._answered: RequestResponseCycle | None = None  # the request whose turn it is, or was last
        self._deaf = False  # nothing more is parsed
        self._last_words = b""  # what is said before it ends, once every whole request has its answer
        self._lingering = False
        self._offered = False  # the parser stopped behind a head that offers another protocol
        self._again = False  # the head that begins was read before
        self._spare = False
        self._patience_s = self.limits.receive_timeout_s
        self._due = inf  # when the caller must have sent what is waited for
        self._refusing: Any = self.app_state.get("refuse")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller. Over the bound it is heard only if it asks how the service does."""
        super().connection_made(transport)
        self._outlet = Outlet(transport, self._close)
        over = len(self.connections) - self.limits.max_connections
        if over > 0:
            self._spare, self._patience_s = True, min(SPARE_S, self._patience_s)
        self._due = self.loop.time() + self._patience_s
        self._timer = self.loop.call_at(self._due, self._tick)
        if over > SPARE_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever closed."""
        self._deaf = True
        self._backlog.clear()
        self._timer.cancel()
        if self._answered is not None and not self._answered.response_complete:
            # uvicorn tells the request that was parsed last: with pipelining that is another one.
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hold it until its turn."""
        if not self._deaf:
            if self._backlog:
                self._hold(data)
            else:
                self._parse(data)
        else:
            self._rest += len(data)
            if self._rest > LINGER_BYTES:
                self.transport.abort()

    def on_response_complete(self) -> None:
        """The next request's turn has come, and with it that of the bytes after it."""
        self._outlet.flush()
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._lingering:
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if self._deaf and cycle.more_body:  # and never gets the rest
                self._end_with(self._last_words)
                return
            self._due = self.loop.time() + self._patience_s if cycle.more_body else inf
            self._begin(cycle, app)  # not refused any more: its head was read long ago
        elif not self._receiving:
            self._due = self.loop.time() + self.timeout_keep_alive
        if self._deaf:
            if not self._answering():  # the last request that was parsed has its answer
                self._end_with(self._last_words)
        else:
            while self._backlog and not self.pipeline:
                self._parse(self._backlog.take(SLICE))

    def _tick(self) -> None:
        now = self.loop.time()
        if self._outlet.is_slow(now):
            self.transport.abort()
            return
        if now >= self._due:
            self._due = inf
            self._expire()
        self._timer = self.loop.call_at(min(self._due, now + self.limits.receive_timeout_s), self._tick)

    def _expire(self) -> None:
        """What was due is not here."""
        if not self._receiving or self._lingering:
            self.transport.close()
        else:
            self._refuse(LATE)

    def _parse(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self.pipeline:
            part = data if len(data) <= SLICE else data[start : start + SLICE]
            start += len(part)
            self._unfinished += len(part)
            self._feed(part)
            if self._unfinished > MAX_UNFINISHED_BYTES and not self._deaf:
                self._refuse(TOO_LARGE)
            if self._deaf or self.transport.is_closing():
                self._backlog.clear()
                return
        if start < len(data):
            self._hold(data[start:])

    def _hold(self, data: bytes) -> None:
        """Keep bytes for later. Of too many nothing is kept, and the connection ends with the answers that are coming.

        They are read all the same: else nobody would notice that the caller hangs up.
        """
        if not self._backlog.hold(data):
            self._deaf = True

    def _feed(self, part: bytes) -> None:
        try:
            self.parser.feed_data(part)
        except HttpParserUpgrade as upgrade:
            if not self._offered:
                # CONNECT, which only a proxy takes up: the app refuses it, and nothing follows.
                self._deaf = True
                if not self._answering():
                    self._end_with(b"")
                return
            self._offered = False
            rest = self._head_without_offer() + part[upgrade.args[0] :]
            # Another parser: behind a head that also says "close" this one swallows whatever comes.
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._again = True
            self._feed(rest)
        except HttpParserError:
            if not self._deaf:  # else it was us who would have no more
                self._refuse(MALFORMED)

    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _head_without_offer(self) -> bytes:
        """The head of a request that offers another protocol, without the offer.

        Some clients offer HTTP/2 in every first request. Nobody need take it up (RFC 9110, section 7.8), but
        httptools reads no body behind it.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _counted(self, refusal: Refusal) -> bytes:
        """The answer of a refusal that no request stands for in the metrics."""
        if (metrics := self.app_state.get("metrics")) is not None:
            metrics.rejections.labels(refusal.code).inc()
        return refusal.answer

    def _refuse(self, refusal: Refusal) -> None:
        """Hear nothing more. The request that is not whole is refused, after those ahead of it have their answers."""
        waits = self._in_body and not self.pipeline  # the app has that very request, and waits for the rest
        if not waits:
            self._last_words = self._counted(refusal)
        elif not self.cycle.response_started:
            # It has a request in the metrics, which ends as the caller is told and not as the app sees it.
            self.cycle.scope["refused"] = refusal  # type: ignore[typeddict-unknown-key]
            self._last_words = refusal.answer
        self._deaf, self._due = True, inf
        if waits:
            self.cycle.disconnected = not self.cycle.response_complete
            self.cycle.message_event.set()
        if waits or not self._answering():
            self._end_with(self._last_words)

    def _end_with(self, answer: bytes) -> None:
        self._deaf = True
        if not self.transport.is_closing():
            self._outlet.write(answer)
            self._close()

    def _close(self) -> None:
        """Say that nothing more comes, and close once the caller has, or has had the time to read that."""
        if self.transport.is_closing() or self._lingering:
            return
        self._deaf, self._lingering, self._rest = True, True, 0
        self._outlet.end()
        self.flow.resume_reading()
        self._due = self.loop.time() + LINGER_S
        self._timer.cancel()
        self._timer = self.loop.call_at(self._due, self._tick)

    def on_message_begin(self) -> None:
        """A request line begins. Raises Deaf where nobody will answer it, which ends the parser."""
        if self._deaf:
            raise Deaf
        self._in_body, self._receiving, self._rest = False, True, 0
        if not self._again:  # else it is due when it was
            self._due = self.loop.time() + self._patience_s
        self._again = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped, which uvicorn would add to the headers of a request being answered."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request begins, unless its head is to be read once more. Raises MalformedHead, which ends the parser."""
        self._unfinished = 0
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offered:
            return
        version = self.parser.get_http_version()
        self.url = checked_target(version, self.url, self.headers)
        self.expect_100_continue &= version != "1.0"  # RFC 9110, section 10.1.1
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self._outlet)
        self._in_body = True
        if self.pipeline:
            self._due = inf  # nothing is parsed until its turn comes
            self.flow.resume_reading()  # but that the caller hangs up is to be seen

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """A request whose head is whole: the app's, unless it is refused here."""
        scope = cast(Scope, cycle.scope)
        if self._spare:
            cycle.keep_alive = False
            if scope["path"] not in ALWAYS_ADMITTED:
                cycle.response_started = cycle.response_complete = True
                self._end_with(self._counted(busy()))
                return
        refused = None if self._refusing is None or self.flow.write_paused else self._refusing(scope)
        if refused is None:
            self._begin(cycle, app)
            return
        status, headers, body = refused
        lines = [STATUS_LINE[status]]
        for name, value in chain(self.server_state.default_headers, headers):
            if name == b"connection":
                cycle.keep_alive = False
            else:
                lines += [name, b": ", value, b"\r\n"]
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        cycle.response_started = cycle.response_complete = True
        self.server_state.total_requests += 1
        self._outlet.write(b"".join([*lines, body]))
        if not cycle.keep_alive:
            self._close()

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_chunk_header(self) -> None:
        """A chunk of a body begins."""
        self._unfinished = 0

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unfinished = 0
        if self.cycle.response_complete:
            self._rest += len(body)
            if self._rest > MAX_REST_BYTES:
                self._close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._unfinished = 0
        if self._offered:
            return
        self._in_body = self._receiving = False
        if not self._lingering:
            self._due = inf if self._answering() else self.loop.time() + self.timeout_keep_alive
        super().on_message_complete()


def within(limits: Limits) -> type[BoundedHttpProtocol]:
    """The protocol with these limits."""
    return type("LimitedHttpProtocol", (BoundedHttpProtocol,), {"limits": limits, "all_held": Held()})

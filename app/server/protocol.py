"""uvicorn's HTTP protocol with bounds on time, bytes and connections.

uvicorn waits without limit for the rest of a request, for a header without end, and for a client to read a response.
This module adds those limits. Parsing, flow control, pipelining and responses are uvicorn's.

A client that closes its half of a connection counts as gone, so that rows nobody waits for are not computed.
"""

import asyncio
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.requests import Request
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.admission import OUTSIDE_ADMISSION, PROBES
from app.api.middleware import MAX_HEADER_BYTES, MAX_HEADERS
from app.errors import BadRequest, HeadersTooLarge, RequestTimeout, ServiceError, TooManyCallers, problem_of
from app.scoreboard import Counter, Scoreboard
from app.server.framing import check_head
from app.server.turns import MAX_READ_BYTES, Turns

# Twice the limit of the app, so that a request slightly over that limit still gets the app's response.
MAX_UNFINISHED_BYTES = 2 * MAX_HEADER_BYTES
# Requests, and bytes of them, that may wait behind a request without a response.
MAX_PIPELINED, MAX_PIPELINED_BYTES = 16, 64 * 1024
# Each chunk costs a Python call, whatever its size. The first FREE_CHUNKS chunks of a body may have any size; beyond
# them chunks must have MIN_CHUNK_BYTES on average.
FREE_CHUNKS, MIN_CHUNK_BYTES = 256, 32
# Bytes a second at which a client must read a response.
MIN_READ_RATE = 16 * 1024
# Seconds in which a connection that was closed for writing is still read.
LINGER_S = 1.0
# Connections above the bound, which only probes may use, and the seconds that each may stay open.
PROBE_CONNECTIONS, PROBE_TIMEOUT_S = 64, 1.0


class UnsupportedUvicorn(Exception):
    """uvicorn lacks a method that is overridden here, so that a limit would silently not be enforced."""


@dataclass(frozen=True)
class Limits:
    """Limits of the connections.

    receive_timeout_s: from the first byte of a request to its last; for a new connection, to its first byte. A client
        that reads a response too slowly is noticed after this time.
    max_connections: open at the same time in all processes; probes have a few more.
    """

    receive_timeout_s: float = 10
    max_connections: int = 2048


class BoundedHttpProtocol(HttpToolsProtocol):
    """Serves one connection within `limits`. Subclasses set them, see `bounded_protocol`."""

    limits: ClassVar[Limits] = Limits()
    open_connections: ClassVar[Counter]
    turns: ClassVar[Turns]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receive_timeout_s = self.limits.receive_timeout_s
        self._deadline: asyncio.TimerHandle | None = None  # of the request being received
        self._read_check: asyncio.TimerHandle | None = None  # of the response being sent
        self._running: RequestResponseCycle | None = None  # in the app; uvicorn's `cycle` is the last one parsed
        self._receiving = False  # a request has begun and is not complete
        self._in_body = False  # its head is complete
        self._lines, self._chunks, self._body_bytes = 0, 0, 0  # of the request being received
        self._unfinished = 0  # bytes since the last complete head, piece of a body, or message
        self._pipelined = 0  # bytes received behind the running request
        self._closing = False  # nothing more is parsed
        self._only_probes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; above the bound only for probes, which must not fail because of other clients."""
        super().connection_made(transport)
        # asyncio does this only for sockets that were created with the protocol number of TCP.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cast(Any, transport).max_size = MAX_READ_BYTES
        transport.set_write_buffer_limits(high=0)  # writing is paused for as long as the client has not read it all
        self.open_connections.add(1)
        excess = self.open_connections.total - self.limits.max_connections
        if excess > 0:
            self._only_probes = True
            self._receive_timeout_s = min(PROBE_TIMEOUT_S, self._receive_timeout_s)
        if excess > PROBE_CONNECTIONS:
            transport.abort()
        self._set_deadline(self._receive_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the running request, which with pipelining is not the one that uvicorn notifies."""
        self.open_connections.add(-1)
        self._clear_deadline()
        self.resume_writing()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and refuse requests that are malformed, too large or, by a timer, too slow."""
        if self._closing:
            return  # Reading goes on so that a client that hangs up is noticed.
        self._unset_keepalive_if_required()
        self._unfinished += len(data)
        try:
            self._parse(data)
        except HttpParserError as error:
            cause = error.__context__  # raised by a callback
            self._refuse(cause if isinstance(cause, ServiceError) else BadRequest("this is not HTTP/1.1"))
            return
        self._pipelined = self._pipelined + len(data) if self.pipeline else 0
        if self._unfinished > MAX_UNFINISHED_BYTES or self._pipelined > MAX_PIPELINED_BYTES:
            self._refuse(HeadersTooLarge(f"a request has at most {MAX_HEADER_BYTES} bytes of headers"))
        elif self._deadline is None and self._receiving:
            self._set_deadline(self._receive_timeout_s)
        elif self._deadline is None and self._running is None:
            self._set_deadline(self.timeout_keep_alive)

    @property
    def is_new(self) -> bool:
        """Whether no request has arrived yet."""
        return cast("RequestResponseCycle | None", self.cycle) is None

    def close_after_response(self) -> None:
        """Close the connection after the response to the running request, unless others wait behind it."""
        if self._running is not None and not self.pipeline:
            self._running.keep_alive = False

    def shutdown(self) -> None:
        """Close an idle connection, the write side first.

        The kernel resets a connection that is closed with unread bytes, and the client could not tell whether a request
        in these bytes was served.
        """
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            super().shutdown()
        elif not self.transport.is_closing():
            self._closing = True
            self._clear_deadline()
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)

    def pause_writing(self) -> None:
        """The client has not read all that was written."""
        super().pause_writing()
        self._schedule_read_check()

    def resume_writing(self) -> None:
        """The client has read all that was written."""
        super().resume_writing()
        if self._read_check is not None:
            self._read_check.cancel()

    def on_message_begin(self) -> None:
        """First byte of a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise BadRequest("too many requests wait for their responses")
        if not self._receiving:  # else its head is parsed again, see `_parse`
            self._clear_deadline()
        self._receiving, self._in_body = True, False
        self._lines, self._chunks, self._body_bytes = 0, 0, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is dropped: uvicorn would add it to headers that were checked already.

        Raises HeadersTooLarge.
        """
        self._lines += 1
        if self._lines > 2 * MAX_HEADERS:  # slightly over the limit, the app responds
            raise HeadersTooLarge(f"a request is limited to {MAX_HEADERS} headers")
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request or queue it. Raises BadRequest and TooManyCallers."""
        self._unfinished = 0
        check_head(self.parser.get_method(), self.parser.get_http_version(), self.url, self.headers)
        if self._only_probes and self.url.partition(b"?")[0].decode() not in OUTSIDE_ADMISSION:
            raise TooManyCallers("the connection limit is reached; retry later")
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._in_body = True
        if self._only_probes:
            self.cycle.keep_alive = False
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses, and would not notice when the client hangs up
        else:
            self._running = self.cycle

    def on_chunk_header(self) -> None:
        """The size of a chunk. Raises BadRequest for many small chunks."""
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body_bytes // MIN_CHUNK_BYTES:
            raise BadRequest(f"the chunks of the body are too small; send at least {MIN_CHUNK_BYTES} bytes in each")

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unfinished = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Last byte of a request."""
        self._unfinished = 0
        if not self.parser.should_upgrade():
            self._receiving = self._in_body = False
            self._clear_deadline()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next request in the pipeline starts."""
        self._running = self.pipeline[-1][0] if self.pipeline else None
        self._pipelined = 0
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Call the app. Probes start at once, other requests in turn."""
        start = partial(super()._start_asgi_task, cycle, app)
        if cycle.scope["path"] in PROBES:
            start()
        else:
            self.turns.start(start)

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
            # Some HTTP clients offer an upgrade to HTTP/2 with their first request, and httptools reads no body behind
            # an offer. It may be ignored (RFC 9110, section 7.8): the head is parsed again without it.
            lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
            lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            data = b"\r\n".join([*lines, b"", b""]) + rest

    def _refuse(self, error: ServiceError) -> None:
        """Stop parsing, and close after the responses to earlier requests; with none, respond with `error`."""
        self._closing = True
        self._clear_deadline()
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # incomplete, and never completed
        waiting = self._in_body and self._running is self.cycle  # the app is waiting for the rest of this request
        if self._running is not None and not waiting:
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
            self.flow.resume_reading()
            return
        if waiting:  # the app records it in the metrics
            cast(Scope, self.cycle.scope)["refused"] = error
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif (metrics := self.app_state.get("metrics")) is not None:
            metrics.failed(error.code)
        if not (self._in_body and self.cycle.response_started):
            response = problem_of(Request({"type": "http"}), error)
            headers = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
            content = STATUS_LINE[response.status_code], headers, b"connection: close\r\n\r\n", bytes(response.body)
            self.transport.write(b"".join(content))
        self.transport.close()

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        if self._receiving:
            self._refuse(RequestTimeout("the request did not arrive completely in time"))
        else:
            self.transport.close()

    def _schedule_read_check(self) -> None:
        seconds = self.limits.receive_timeout_s
        most = self.transport.get_write_buffer_size() - MIN_READ_RATE * seconds
        self._read_check = self.loop.call_later(seconds, self._check_reader, most)

    def _check_reader(self, most: float) -> None:
        """Close if more than `most` bytes are unread. The app writes nothing while writing is paused."""
        if self.transport.get_write_buffer_size() > most:
            self.transport.abort()
        else:
            self._schedule_read_check()


def bounded_protocol(limits: Limits, open_connections: Counter | None = None) -> type[BoundedHttpProtocol]:
    """The protocol with these limits. open_connections: counts them in all processes. Raises UnsupportedUvicorn."""
    # httptools calls `on_chunk_header`, which uvicorn does not have.
    own = {"limits", "open_connections", "is_new", "close_after_response", "on_chunk_header", "turns"}
    overridden = {name for name in vars(BoundedHttpProtocol) if not name.startswith("_")} - own | {"_start_asgi_task"}
    if missing := overridden.difference(dir(HttpToolsProtocol)):
        raise UnsupportedUvicorn(f"uvicorn's HttpToolsProtocol has no {', '.join(sorted(missing))}")
    open_connections = open_connections or Scoreboard().counter("connections")
    settings = {"limits": limits, "open_connections": open_connections, "turns": Turns()}
    return type("LimitedHttpProtocol", (BoundedHttpProtocol,), settings)

"""uvicorn's HTTP protocol over httptools, with bounds on all that is no body. Knows nothing of operations.

httptools, llhttp in C, parses a request several times as fast as h11 does, and bounds nothing: it would gather
a header without an end for ever, and begin thousands of pipelined requests out of one read.
"""

import json
import logging
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.middleware import MAX_HEADER_BYTES
from app.errors import PHRASES, PROBLEM_JSON, HeadersTooLarge

log = logging.getLogger(__name__)

# Twice what the app admits, so that a request which is a little over still gets the app's own answer.
MAX_UNFINISHED_BYTES = 2 * MAX_HEADER_BYTES
# Bytes given to the parser at once, so that what it holds and what it begins is known to within so many.
SLICE = 4096
# How long a refused caller may still send. Closing at once, with bytes unread, would take the refusal back.
LINGER_S = 2


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses what never becomes whole, and parses a pipelined request no earlier than its turn comes.

    A request line with its headers, the head of a chunk, or trailers may have `MAX_UNFINISHED_BYTES` bytes.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unfinished = 0  # bytes since the parser last had something whole: headers, a piece of body, a message
        self._in_body = False
        self._held = b""  # what came after a request that still waits for the one before it
        self._deaf = False  # nothing more is parsed
        self._last_words = b""  # what is said before it ends, once every whole request has its answer
        self._offered = False  # the parser stopped behind a head that offers another protocol

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hold it until its turn."""
        if not self._deaf:
            self._parse(self._held + data if self._held else data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever closed."""
        self._deaf, self._held = True, b""
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The next request's turn has come, and with it that of the bytes after it."""
        super().on_response_complete()
        if self._deaf:
            if not self._answering():  # the last request that was parsed has its answer
                self._say_last_words()
        elif self._held:
            self._parse(self._held)

    def _parse(self, data: bytes) -> None:
        start, waited = 0, bool(self._held)
        while start < len(data) and not self.pipeline:
            part = data if len(data) <= SLICE else data[start : start + SLICE]
            start += len(part)
            self._unfinished += len(part)
            self._feed(part)
            if self._unfinished > MAX_UNFINISHED_BYTES:
                self._refuse()
            if self._deaf or self.transport.is_closing():
                self._held = b""
                return
        self._held = data[start:]
        if self._held:
            # Not by way of `flow`, which resumes whenever the request before asks for its body.
            self.flow.read_paused = False
            self.transport.pause_reading()
        elif waited and not self.flow.read_paused:
            self.transport.resume_reading()

    def _feed(self, part: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(part)
        except HttpParserUpgrade as upgrade:
            if not self._offered:
                self._deaf = True  # CONNECT, which only a proxy takes up: the app refuses it, and nothing follows
                return
            self._offered = False
            rest = self._head_without_offer() + part[upgrade.args[0] :]
            # Another parser: behind a head that also says "close" this one swallows whatever comes.
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._feed(rest)
        except HttpParserError:
            self._reject()

    def _reject(self) -> None:
        """What is no HTTP is answered with 400, after a whole request ahead of it has had its own answer."""
        log.warning("Invalid HTTP request received.")
        self._deaf, self._last_words = True, REJECTION
        if not self._answering():
            self._say_last_words()
        elif self._in_body:
            if not self.cycle.response_started:
                self.transport.write(REJECTION)
            self.transport.close()

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

    def _refuse(self) -> None:
        self._deaf, self._last_words = True, REFUSAL
        if not self._answering():
            self._say_last_words()
        elif self._in_body:
            self.transport.close()

    def _say_last_words(self) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.transport.write(self._last_words)
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_body = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped, which uvicorn would add to the headers of a request being answered."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request begins, unless its head is to be read once more."""
        self._unfinished = 0
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offered:
            return
        super().on_headers_complete()
        self._in_body = True

    def on_chunk_header(self) -> None:
        """A chunk of a body begins."""
        self._unfinished = 0

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._unfinished = 0
        self._in_body = False
        if not self._offered:
            super().on_message_complete()


def answer(status: int, content_type: str, content: str) -> bytes:
    """An answer to what is no request, and so has no id; the last one of its connection."""
    lines = [
        f"HTTP/1.1 {status} {PHRASES[status]}",
        f"content-type: {content_type}",
        f"content-length: {len(content)}",
        "connection: close",
    ]
    return "\r\n".join([*lines, "", content]).encode()


def refusal() -> bytes:
    """The answer to headers that have no end."""
    status = HeadersTooLarge.status
    detail = f"a request has at most {MAX_HEADER_BYTES} bytes of headers"
    body = {"type": "about:blank", "title": PHRASES[status], "status": status, "detail": detail}
    return answer(status, PROBLEM_JSON, json.dumps(body | {"code": HeadersTooLarge.code, "request_id": None}))


REFUSAL = refusal()
REJECTION = answer(400, "text/plain; charset=utf-8", "Invalid HTTP request received.")

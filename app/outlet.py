"""What an answer is written to. Knows no protocol."""

import asyncio
from collections.abc import Callable

# How a head begins that has an answer after it: not one of 100, for which the caller waits.
ANSWER = tuple(f"HTTP/1.1 {hundreds}".encode() for hundreds in range(2, 6))


class Outlet:
    """What a request's answer is written to: counts the bytes, and lets the protocol close.

    uvicorn writes the head of an answer and its content one by one. The head waits here for what comes next, so that
    most answers are one system call and one segment.
    """

    __slots__ = ("_close", "_head", "_write", "is_closing", "written")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._write, self.is_closing, self._close = transport.write, transport.is_closing, close
        self._head = b""
        self.written = 0

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, unless they are the head of an answer."""
        if not self._head and data.startswith(ANSWER) and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self.written += len(data)
        self._write(data)

    def flush(self) -> None:
        """Nothing comes after the head."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """The last answer is written."""
        self.flush()
        self._close()

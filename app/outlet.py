"""What an answer is written to. Knows no protocol."""

import asyncio
from collections.abc import Callable

# How a head begins that has an answer after it: not one of 100, for which the caller waits.
ANSWER = tuple(f"HTTP/1.1 {hundreds}".encode() for hundreds in range(2, 6))
# An answer is taken at this pace at least, in bytes a second; slower readers hold memory for longer than they should.
LEAST_PACE = 16 * 1024


class Outlet:
    """What answers are written to: watches the pace at which they are taken, and lets the protocol close.

    uvicorn writes the head of an answer and its content one by one. The head waits here for what comes next, so that
    most answers are one system call and one segment.
    """

    __slots__ = ("_close", "_ended", "_head", "_taken", "_transport", "_written")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport, self._close = transport, close
        self._ended = False
        self._head = b""
        self._written = 0
        self._taken: tuple[float, int] | None = None  # when the caller was last seen behind, and what it had taken

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, unless they are the head of an answer, or it was told to end."""
        if self._ended:  # uvicorn says "go on" to a caller that was refused meanwhile
            return
        if not self._head and data.startswith(ANSWER) and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._written += len(data)
        self._transport.write(data)

    def flush(self) -> None:
        """Nothing comes after the head."""
        if self._head:
            self.write(b"")

    def is_slow(self, now: float) -> bool:
        """Whether the caller, behind now and when last asked this, has taken its answers too slowly meanwhile."""
        unsent = self._transport.get_write_buffer_size()
        before, self._taken = self._taken, (now, self._written - unsent) if unsent else None
        if before is None or self._taken is None:
            return False
        return self._taken[1] - before[1] < LEAST_PACE * (now - before[0])

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._transport.write_eof()

    def is_closing(self) -> bool:
        """Whether what is written goes nowhere."""
        return self._ended or self._transport.is_closing()

    def close(self) -> None:
        """The last answer is written."""
        self.flush()
        self._close()

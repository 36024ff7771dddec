"""Accepts connections at a listening socket that the processes of a service share.

asyncio's server accepts all waiting connections in one turn of the event loop, so that one process got most of a burst.
Here a process accepts a few per turn, and pauses while it has more than its share.
"""

import asyncio
import ctypes
import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from socket import SOL_SOCKET, socket

from app.scoreboard import Scoreboard

log = logging.getLogger(__name__)

# Connections accepted in a turn of the event loop.
MAX_ACCEPTS_PER_TURN = 16
# A process pauses while it has more connections than SHARE times the mean of all processes, plus SPARE.
SHARE, SPARE = 1.125, 2
# Seconds of this pause, which leaves connections to the others.
PAUSE_S = 0.005
# Seconds until the next attempt when no connection can be accepted, for example with too many open files.
RETRY_S = 1.0


# A packet filter (Linux, `man 7 socket`): load byte 13 of the TCP header, its flags; drop the packet if SYN is set.
SO_ATTACH_FILTER = 26
DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF))
)


def refuse_new(listener: socket) -> None:
    """Make the kernel drop new connection attempts, so that none is reset between the last `accept` and `close`.

    When a client repeats its attempt after a second, the listener is closed.
    """
    program = ctypes.create_string_buffer(DROP_SYN)
    with suppress(OSError):
        listener.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(program)))


class Acceptor:
    """Accepts connections and gives each a protocol. It belongs to one running event loop."""

    def __init__(self, listener: socket, make_protocol: Callable[[], asyncio.Protocol], scoreboard: Scoreboard) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._scoreboard = scoreboard
        self._connections = scoreboard.counter("connections")
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        listener.setblocking(False)

    def start(self) -> None:
        """Begin to accept connections."""
        if self._listener.fileno() < 0:  # closed since `_wait`
            return
        self._pause = None
        self._loop.add_reader(self._listener, self._on_readable)

    def stop(self, *, leave_rest: bool) -> None:
        """Close the listener, if it is open.

        leave_rest: leave pending connections to other processes. Otherwise they are accepted first, because the kernel
        resets them when the last process closes the listener.
        """
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        if not leave_rest:
            refuse_new(self._listener)
            while self._accept():
                pass
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()

    def _on_readable(self) -> None:
        for _ in range(MAX_ACCEPTS_PER_TURN):
            pending = len(self._connecting)  # not yet counted
            mean = (self._connections.total + pending) / max(1, self._scoreboard.serving)
            if self._connections.own + pending > SHARE * mean + SPARE:
                self._wait(PAUSE_S)
                return
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accept a connection. Returns whether there was one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another process was faster, or the client has disconnected
        except OSError as error:
            log.error("cannot accept connections: %s", error)
            self._wait(RETRY_S)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
        self._connecting.add(task)  # the loop holds only a weak reference
        task.add_done_callback(self._connecting.discard)
        return True

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self.start)

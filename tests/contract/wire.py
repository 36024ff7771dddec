"""A client that writes bytes rather than requests, and reads the responses."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx

Address = tuple[str, int]
Answer = tuple[int, dict[str, Any]]


def address_of(client: httpx.Client) -> Address:
    """The address that a client calls."""
    return client.base_url.host, client.base_url.port or 0


@contextlib.contextmanager
def connection(address: Address) -> Iterator[socket.socket]:
    """A connection. Its timeout only ends a test that would never end."""
    with socket.create_connection(address, timeout=60) as caller:
        yield caller


def send(caller: socket.socket, content: bytes) -> None:
    """Send as much as the other side takes."""
    with contextlib.suppress(OSError):  # it may refuse and close before it has read all
        caller.sendall(content)


def answers(caller: socket.socket, count: int) -> list[Answer]:
    """Status and JSON of the next `count` responses; fewer when the connection ends."""
    found: list[Answer] = []
    with caller.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
        while len(found) < count and (status := lines.readline()):
            length, kind = 0, b""
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                if line.startswith(b"content-type:"):
                    kind = line.split(b":")[1].strip()
            content = lines.read(length)
            code = int(status.split()[1])
            assert code < 400 or kind == b"application/problem+json", status
            if code != 100:
                found.append((code, json.loads(content) if content.startswith(b"{") else {}))
    return found


def until_closed(caller: socket.socket) -> list[Answer]:
    """All responses until the other side closes."""
    return answers(caller, 2**31)

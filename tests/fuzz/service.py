"""The service under the corpus, then under mutations of it, byte by byte over sockets. Keeps what took longest."""

import random
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic, perf_counter

from tests.conftest import FIXTURES
from tests.corpus import files, forms, texts, wires

INTENDED = {503, 504}  # overload, and a deadline of the caller's own; every other 5xx is a fault
# Longer than anything may take; half requests are refused long before.
WAIT_S = 60
HALF = 408
Address = tuple[str, int]


@dataclass
class Seen:
    """What came of the requests."""

    statuses: Counter[int | None] = field(default_factory=Counter)
    faults: list[bytes] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: bytes = b""

    def take(self, content: bytes, status: int | None, seconds: float) -> None:
        """Count an answer, None where the connection was closed without one."""
        self.statuses[status] += 1
        if status is not None and status >= 500 and status not in INTENDED:
            self.faults.append(content)
        if seconds > self.slowest_s and status != HALF:
            self.slowest_s, self.slowest = seconds, content


def requests() -> Iterator[bytes]:
    """The corpus as whole requests, the last of their connections."""
    yield from wires.TWO_WAYS.values()
    for query in texts.WRONG_QUERIES.values():
        yield b"GET /interpolate?%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % query.encode()
    for line in wires.WRONG_TIMEOUTS.values():
        yield b"GET /interpolate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % line
    members = texts.WRONG_FIELDS | texts.WRONG_LATENTS | texts.WRONG_CHOICES | texts.WRONG_ENDS
    objects = [b"{%b}" % text.encode() for text in members.values()]
    for body in chain(objects, texts.NO_JSON.values(), texts.NO_OBJECT.values()):
        for path in (b"/generate", b"/interpolate", b"/score"):
            yield post(path, b"application/json", body)
    for content in chain(files.BAD.values(), files.ODD.values(), files.BROKEN_EXIF.values()):
        for path in (b"/reconstruct", b"/score"):
            yield post(path, b"application/octet-stream", content)
    for kind, body in forms.forms((FIXTURES / "mnist" / "7.png").read_bytes()).values():
        yield post(b"/reconstruct", kind.encode("latin-1"), body)


def post(path: bytes, kind: bytes, body: bytes) -> bytes:
    """A request with a body."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, kind, len(body)) + body


def mutated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A few bytes changed, left out, doubled, or taken from another one."""
    made = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made) + 1)
        length = chance.choice((1, 1, 2, 4, 16, 200))
        other = chance.choice(others)
        start = chance.randrange(len(other) + 1)
        piece = chance.choice(
            (b"", chance.randbytes(length), made[at : at + length] * 2, other[start : start + length], b"\xff" * length)
        )
        made[at : at + length] = piece
    return bytes(made)


def ask(address: Address, content: bytes, seen: Seen) -> None:
    """Send a request and take the first status."""
    started = perf_counter()
    status = None
    try:
        with socket.create_connection(address, timeout=WAIT_S) as caller:
            caller.sendall(content)
            answer = caller.recv(65536)
            status = int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else None
    except OSError:
        status = None
    seen.take(content, status, perf_counter() - started)


def fuzz(address: Address, seconds: float, seed: int) -> Seen:
    """The whole corpus once, then mutations of it until the time is over."""
    seen, corpus, chance = Seen(), list(requests()), random.Random(seed)
    for content in corpus:
        ask(address, content, seen)
    until = monotonic() + seconds
    small = [content for content in corpus if len(content) < 20_000]
    while monotonic() < until:
        ask(address, mutated(chance.choice(small), small, chance), seen)
    return seen

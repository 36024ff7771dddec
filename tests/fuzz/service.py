"""The corpus and random mutations of it, sent to a service over sockets."""

import random
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from time import monotonic, perf_counter

from tests.conftest import FIXTURES
from tests.corpus import files, forms, texts, wires

INTENDED = {503, 504}  # overload, and a deadline set by the caller
# Longer than any answer may take. Incomplete requests are refused much earlier, after the receive deadline.
TIMEOUT_S = 60
INCOMPLETE = 408
MODEL = b"/v2/models/cgan.generate"
INFER = MODEL + b"/infer"
PROTOCOL = (b"/v2", b"/v2/health/live", b"/v2/health/ready", MODEL, MODEL + b"/ready", MODEL + b"/versions/%00/ready")
STREAMED = (b"application/x-ndjson", b"text/event-stream", b"application/zip", b"application/x-idx")
STREAMS = (
    b'{"model":"cgan","n":200,"seed":8,"first":3,"label":["3","7"]}',
    b'{"model":"cgan","n":100000,"seed":8,"label":"balanced","idx":"labels"}',
    b'{"model":"gan","n":1,"scale":16}',
    b'{"model":"cgan","n":100001}',
    b'{"model":"cgan","n":200,"first":9007199254740991}',
)
Address = tuple[str, int]


@dataclass
class Seen:
    """The answers: how many of each status (None for a closed connection), requests with server errors, the slowest."""

    statuses: Counter[int | None] = field(default_factory=Counter)
    faults: list[bytes] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: bytes = b""

    def add(self, request: bytes, status: int | None, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        if status is not None and status >= 500 and status not in INTENDED:
            self.faults.append(request)
        if seconds > self.slowest_s and status != INCOMPLETE:
            self.slowest_s, self.slowest = seconds, request


def fuzz(address: Address, seconds: float, seed: int) -> Seen:
    """Send the whole corpus once, then mutations of it until the time is over."""
    seen, corpus, chance = Seen(), list(requests()), random.Random(seed)
    for request in corpus:
        send(address, request, seen)
    until = monotonic() + seconds
    small = [request for request in corpus if len(request) < 20_000]
    while monotonic() < until:
        send(address, mutated(chance.choice(small), small, chance), seen)
    return seen


def requests() -> Iterator[bytes]:
    """The corpus as HTTP requests, each of which closes its connection."""
    yield from wires.TWO_WAYS.values()
    for query in texts.WRONG_QUERIES.values():
        yield b"GET /interpolate?%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % query.encode()
    for line in wires.WRONG_TIMEOUTS.values():
        yield b"GET /interpolate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % line
    members = texts.WRONG_FIELDS | texts.WRONG_LATENTS | texts.WRONG_CHOICES | texts.WRONG_ENDS | texts.WRONG_FACTORS
    objects = [b"{%b}" % text.encode() for text in members.values()]
    for body in chain(objects, texts.NO_JSON.values(), texts.NO_OBJECT.values()):
        for path in (b"/generate", b"/interpolate", b"/score", b"/upscale"):
            yield post(path, b"application/json", body)
    for accepted, body in product(STREAMED, STREAMS):
        yield post(b"/generate", b"application/json\r\nAccept: %b" % accepted, body)
    for path in PROTOCOL:
        yield b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
    for fields in texts.WRONG_TENSORS.values():
        yield post(INFER, b"application/json", b"{%b}" % fields.encode())
    for size, content in texts.WRONG_BINARY:
        yield post(INFER, b"application/octet-stream\r\nInference-Header-Content-Length: %b" % size, content)
    for content in (files.BAD | files.ODD | files.BROKEN_EXIF).values():
        for path in (b"/normalize", b"/reconstruct", b"/score", b"/classify", b"/upscale"):
            yield post(path, b"application/octet-stream", content)
    for kind, body in forms.forms((FIXTURES / "mnist" / "7.png").read_bytes()).values():
        yield post(b"/reconstruct", kind.encode("latin-1"), body)


def post(path: bytes, kind: bytes, body: bytes) -> bytes:
    """A POST request."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, kind, len(body)) + body


def mutated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A copy with a few ranges deleted, doubled, or replaced by random bytes or parts of other requests."""
    copy = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(copy) + 1)
        length = chance.choice((1, 1, 2, 4, 16, 200))
        other = chance.choice(others)
        start = chance.randrange(len(other) + 1)
        copy[at : at + length] = chance.choice(
            (b"", chance.randbytes(length), copy[at : at + length] * 2, other[start : start + length], b"\xff" * length)
        )
    return bytes(copy)


def send(address: Address, request: bytes, seen: Seen) -> None:
    """Send a request and count the first status of the answer."""
    started = perf_counter()
    status = None
    try:
        with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
            status = int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else None
    except OSError:
        pass
    seen.add(request, status, perf_counter() - started)

"""Is a seed a byte string? Thousands of images asked for alone, and again under load, in batches, after restarts.

Of every model that ships.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import local

from benchmarks.cells import Configuration
from benchmarks.places import SHIPPED
from benchmarks.processes import running

SEEDS = 10_000
CALLERS = 64
SIZES = (*range(1, 34), 64, 128, 256)
ROWS = 256


class Mismatch(Exception):
    """Bytes that differ, which is what this looks for."""


class Client:
    """`POST /generate` over one connection a thread."""

    def __init__(self, port: int, model: str) -> None:
        self._port = port
        self._model = model
        self._connections = local()

    def digests(self, seed: int, first: int, n: int) -> list[str]:
        """SHA-256 of each PNG. Raises OSError for any status but 200."""
        if not hasattr(self._connections, "value"):
            self._connections.value = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection: HTTPConnection = self._connections.value
        body = json.dumps({"model": self._model, "seed": seed, "first": first, "n": n})
        connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}: {content[:200].decode(errors='replace')}")
        return [hashlib.sha256(base64.b64decode(item["png"])).hexdigest() for item in json.loads(content)["images"]]


@contextmanager
def service(workers: int, precision: str, model: str) -> Iterator[Client]:
    """A service of its own, with so many workers."""
    knobs = {"workers": workers, "precision": precision, "models_dir": SHIPPED}
    with running(Configuration("digits", "fast"), knobs, "none") as port:
        yield Client(port, model)


def check(seeds: int, precision: str) -> Iterator[str]:
    """What was compared, line by line. Raises Mismatch at the first byte that differs."""
    for model in sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json")):
        with service(2, precision, model) as client:
            alone = [client.digests(seed, 0, 1)[0] for seed in range(seeds)]
            rows = [client.digests(0, row, 1)[0] for row in range(ROWS)]
        if len(set(alone)) < 0.99 * seeds:
            raise Mismatch(f"{model}: seeds give the same image")
        yield f"{model}: {seeds} seeds alone, {len(set(alone))} different images"
        for workers in (1, 2):
            with service(workers, precision, model) as client, ThreadPoolExecutor(CALLERS) as callers:
                loaded = callers.map(lambda seed, ask=client.digests: ask(seed, 0, 1)[0], range(seeds))
                _compare(f"{model}, {workers} workers, {CALLERS} callers", loaded, alone)
                spans = [(first, min(size, ROWS - first)) for size in SIZES for first in range(0, ROWS, size)]
                batches = callers.map(lambda span, ask=client.digests: ask(0, *span), spans)
                for (first, size), batch in zip(spans, batches, strict=True):
                    _compare(f"{model}, {workers} workers, {size} rows from {first}", batch, rows[first : first + size])
            how = f"after a restart, with {workers} workers and {CALLERS} callers"
            yield f"{model}: the same {how}, one by one and in {len(spans)} requests of {SIZES[0]} to {SIZES[-1]}"


def _compare(case: str, made: Iterable[str], expected: list[str]) -> None:
    different = [index for index, (ours, theirs) in enumerate(zip(made, expected, strict=True)) if ours != theirs]
    if different:
        raise Mismatch(f"{case}: {len(different)} of {len(expected)} images differ, the first is {different[0]}")

"""Byte identity: the same seeds of every shipped model that makes images, alone, under load and after restarts."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from threading import local
from time import sleep

from app.checkpoints.manifest import Manifest
from app.checkpoints.store import read_manifest
from benchmarks.paths import SHIPPED
from benchmarks.processes import Service

SEEDS = 1_000
CALLERS = 64
SIZES = (*range(1, 34), 64, 128, 256)
ROWS = 256
# Of a sequential model, of which a lone image may take 0.3 s, this part of the seeds and rows.
SEQUENTIAL_SHARE = 8
# By capability, the operation that makes images from a seed: an upscaler enlarges those of another model.
OPERATIONS = {"generate": "/generate", "upscale": "/upscale"}


class Mismatch(Exception):
    """Bytes that differ."""


class Client:
    """The images of a model from seeds, requested over one connection a thread."""

    def __init__(self, port: int, manifest: Manifest) -> None:
        self._port = port
        self._model = manifest.name
        self._path = next(path for name, path in OPERATIONS.items() if name in manifest.capabilities)
        self._connections = local()

    def digests(self, seed: int, first: int, n: int) -> list[str]:
        """SHA-256 of each PNG. Waits where the service is full. Raises OSError for any other status than 200."""
        if not hasattr(self._connections, "value"):
            self._connections.value = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection: HTTPConnection = self._connections.value
        body = json.dumps({"model": self._model, "seed": seed, "first": first, "n": n})
        while True:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 503:
                break
            sleep(float(answer.headers["Retry-After"]))
        if answer.status != 200:
            raise OSError(f"status {answer.status}: {content[:200].decode(errors='replace')}")
        return [hashlib.sha256(base64.b64decode(item["png"])).hexdigest() for item in json.loads(content)["images"]]


def check(seeds: int, precision: str) -> Iterator[str]:
    """Yields what was compared, line by line. Raises Mismatch at the first difference."""
    manifests = map(read_manifest, sorted(SHIPPED.glob("*/manifest.json")))
    models = [manifest for manifest in manifests if not OPERATIONS.keys().isdisjoint(manifest.capabilities)]
    alone: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    with Service(SHIPPED, {"DIGITS_PROCESSES": "1", "DIGITS_PRECISION": precision}) as service:
        for manifest in models:
            client = Client(service.port, manifest)
            model, share = manifest.name, SEQUENTIAL_SHARE if manifest.sequential else 1
            alone[model] = [client.digests(seed, 0, 1)[0] for seed in range(seeds // share)]
            rows[model] = [client.digests(0, row, 1)[0] for row in range(ROWS // share)]
            if (different := len(set(alone[model]))) < 0.99 * len(alone[model]):
                raise Mismatch(f"{model}: seeds give the same image")
            yield f"{model}: {len(alone[model])} seeds alone, {different} different images"
    for processes in (1, 2):
        environment = {"DIGITS_PROCESSES": str(processes), "DIGITS_PRECISION": precision}
        with Service(SHIPPED, environment) as service, ThreadPoolExecutor(CALLERS) as callers:
            for manifest in models:
                client = Client(service.port, manifest)
                yield compare(client, callers, manifest.name, alone[manifest.name], rows[manifest.name])
        yield f"all of that after a restart with processes = {processes}"


def compare(client: Client, callers: ThreadPoolExecutor, model: str, alone: list[str], rows: list[str]) -> str:
    """Ask for the seeds and rows of one model again, all callers at once. Raises Mismatch."""
    loaded = callers.map(lambda seed: client.digests(seed, 0, 1)[0], range(len(alone)))
    require_equal(f"{model}, {CALLERS} callers", loaded, alone)
    count = len(rows)
    spans = [(first, min(size, count - first)) for size in SIZES if size <= count for first in range(0, count, size)]
    batches = callers.map(lambda span: client.digests(0, *span), spans)
    for (first, size), batch in zip(spans, batches, strict=True):
        require_equal(f"{model}, {size} rows from {first}", batch, rows[first : first + size])
    return f"{model}: equal from {CALLERS} callers, one by one and in requests of {SIZES[0]} to {count} images"


def require_equal(case: str, made: Iterable[str], expected: list[str]) -> None:
    """Raises Mismatch where digests differ."""
    different = [index for index, (ours, theirs) in enumerate(zip(made, expected, strict=True)) if ours != theirs]
    if different:
        raise Mismatch(f"{case}: {len(different)} of {len(expected)} images differ, the first is {different[0]}")

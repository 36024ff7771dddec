"""mosec: a front end in Rust batches requests for worker processes, which do the rest of the work once a batch."""

import json
import os
from typing import Any

import torch
from mosec import Server, Worker

from benchmarks.peers import rows


class Digits(Worker):
    """A worker process. Both operations share it: a body of multipart begins with a hyphen, JSON does not."""

    def __init__(self) -> None:
        super().__init__()
        self.models = rows.load_archives()

    def deserialize(self, data: bytes) -> tuple[str, torch.Tensor]:
        """A request as `rows.run_batch` takes it."""
        if data.startswith(b"--"):
            return rows.RECONSTRUCT, rows.read_image(only_part(data))
        body = json.loads(data)
        return body["model"], rows.draw_latents(body["model"], body["n"], body["seed"])

    def forward(self, data: list[tuple[str, torch.Tensor]]) -> list[Any]:
        """Images `(n, 28, 28)` for each request."""
        return rows.run_batch(self.models, data)

    def serialize(self, data: Any) -> bytes:
        """JSON with base64 PNG."""
        return rows.to_json(data)


def only_part(body: bytes) -> bytes:
    """The content of the only part of a multipart body; a worker sees no headers, so the boundary is the first line."""
    head, _, rest = body.partition(b"\r\n\r\n")
    boundary = head.partition(b"\r\n")[0]
    return rest[: rest.rindex(b"\r\n" + boundary)]


def main() -> None:
    """Serve both operations with one pool of workers."""
    knobs = rows.knobs()
    os.environ.update(MOSEC_ADDRESS="127.0.0.1", MOSEC_PORT=str(rows.port()), MOSEC_LOG_LEVEL="warning")
    os.environ["MOSEC_TIMEOUT"] = "60000"  # ms, as for the other servers
    server = Server()
    server.append_worker(
        Digits,
        num=knobs["workers"],
        max_batch_size=knobs["max_batch_size"],
        max_wait_time=knobs["max_wait_time_ms"],
        route=["/generate", "/reconstruct"],
    )
    server.run()

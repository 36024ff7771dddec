"""BentoML: adaptive batching in the outer service.

An inner service behind `bentoml.depends` fails: since 1.4.30 the client between services closes its session every
hundred requests, while requests are in flight, and some callers get a 500.
"""

from pathlib import Path
from typing import Annotated, Any

import bentoml
from pydantic import BaseModel, BeforeValidator

from benchmarks.peers import rows

KNOBS = rows.knobs()
BATCHED = {"batchable": True, "max_batch_size": KNOBS["max_batch_size"], "max_latency_ms": KNOBS["max_latency_ms"]}


class GenerateRequest(BaseModel):
    """Images of a seed."""

    model: str
    n: int
    seed: int


def as_batch(body: Any) -> Any:
    """BentoML batches lists; a caller sends one request."""
    return body if isinstance(body, list) else [body]


@bentoml.service(workers=KNOBS["workers"], traffic={"timeout": 60, "max_concurrency": 512})
class Digits:
    """Requests of several callers in one forward pass, in the service's thread."""

    def __init__(self) -> None:
        self.models = rows.load_archives()

    @bentoml.api(**BATCHED)
    def generate(self, asked: Annotated[list[GenerateRequest], BeforeValidator(as_batch)], /) -> list[list[str]]:
        """`POST /generate`."""
        requests = [(each.model, rows.draw_latents(each.model, each.n, each.seed)) for each in asked]
        return [[rows.to_png(image) for image in images] for images in rows.run_batch(self.models, requests)]

    @bentoml.api(**BATCHED)
    def reconstruct(self, file: list[Path]) -> list[str]:
        """`POST /reconstruct`."""
        requests = [(rows.RECONSTRUCT, rows.read_image(path.read_bytes())) for path in file]
        return [rows.to_png(images[0]) for images in rows.run_batch(self.models, requests)]

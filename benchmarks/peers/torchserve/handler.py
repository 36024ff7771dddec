"""TorchServe's handler: one forward pass for the requests of a batch."""

from typing import Any

import torch

from benchmarks.peers import rows


class Handler:
    """The entry point of TorchServe's workers."""

    def initialize(self, _: Any) -> None:
        """Load the models, once a worker."""
        self.models = rows.load_archives()

    def handle(self, requests: list[dict[str, Any]], _: Any) -> list[dict[str, list[str]]]:
        """One answer a request, in order."""
        batch = rows.run_batch(self.models, [read(request) for request in requests])
        return [{"images": [rows.to_png(image) for image in images]} for images in batch]


def read(request: dict[str, Any]) -> tuple[str, torch.Tensor]:
    """A request as `rows.run_batch` takes it."""
    if "file" in request:
        return rows.RECONSTRUCT, rows.read_image(bytes(request["file"]))
    body = request["body"]
    return body["model"], rows.draw_latents(body["model"], body["n"], body["seed"])

"""TorchServe's handler: rows of the requests of a batch in one forward pass."""

from typing import Any

import torch

from benchmarks.peers import rows


class Handler:
    """What a worker of TorchServe calls."""

    def initialize(self, _: Any) -> None:
        """Load the models, once a worker."""
        self.models = rows.load_archives()

    def handle(self, requests: list[dict[str, Any]], _: Any) -> list[dict[str, list[str]]]:
        """Requests of one batch to one answer each, in order."""
        if not requests:
            return []
        asked = [self._read(request) for request in requests]
        answers: list[Any] = [None] * len(asked)
        for kind in {name for name, _ in asked}:
            mine = [index for index, (name, _) in enumerate(asked) if name == kind]
            inputs = [asked[index][1] for index in mine]
            with torch.no_grad():
                images = rows.to_uint8(self._pass(kind, torch.cat(inputs)))
            start = 0
            for index, part in zip(mine, inputs, strict=True):
                end = start + len(part)
                answers[index] = {"images": [rows.to_png(image) for image in images[start:end]]}
                start = end
        return answers

    @staticmethod
    def _read(request: dict[str, Any]) -> tuple[str, torch.Tensor]:
        if "file" in request:
            return "reconstruct", rows.read_image(bytes(request["file"]))
        body = request["body"]
        return body["model"], rows.draw_latents(body["model"], body["n"], body["seed"])

    def _pass(self, kind: str, inputs: torch.Tensor) -> torch.Tensor:
        if kind == "reconstruct":
            return rows.reconstruct(self.models["vae"], inputs)
        return self.models[kind].generate(inputs)

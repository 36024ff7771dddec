"""The work that all peers share: load archives, draw latents, run a batch, read and write PNG."""

import base64
import io
import json
import os
import struct
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LATENT_DIM = {"gan": 100, "vae": 16}
RECONSTRUCT = "reconstruct"
FASTEST, USUAL = 1, 6  # levels of zlib


def knobs() -> dict[str, Any]:
    """The settings of this server, from its `tuned.json`."""
    chosen: dict[str, Any] = json.loads(os.environ["BENCH_KNOBS"])
    return chosen


def port() -> int:
    """The port of the API."""
    return int(os.environ["BENCH_PORT"])


def load_archives() -> dict[str, Any]:
    """The TorchScript archives of the models, ready for use."""
    torch.set_num_threads(knobs()["threads"])
    paths = json.loads(os.environ["BENCH_ARCHIVES"])
    return {model: torch.jit.load(path).eval() for model, path in paths.items()}  # type: ignore[no-untyped-call]


def draw_latents(model: str, count: int, seed: int) -> Tensor:
    """Standard normal, float32 `(count, latent_dim)`."""
    return torch.randn(count, LATENT_DIM[model], generator=torch.Generator().manual_seed(seed))


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Images `(B, 1, 28, 28)` in [0, 1] as `(B, 28, 28)` of 0 to 255."""
    pixels: NDArray[np.uint8] = images[:, 0].mul(255).round().to(torch.uint8).numpy()
    return pixels


def to_png(image: NDArray[np.uint8], level: int = FASTEST) -> str:
    """One image `(28, 28)` as a base64 PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=level)
    return base64.b64encode(buffer.getvalue()).decode()


def to_json(images: NDArray[np.uint8]) -> bytes:
    """The answer for images `(n, 28, 28)`, as an expert writes it: PNG by zlib costs less than half of Pillow's."""
    return json.dumps({"images": [base64.b64encode(_png(image)).decode() for image in images]}).encode()


def _png(image: NDArray[np.uint8]) -> bytes:
    lines = np.zeros((28, 29), np.uint8)  # each begins with the number of its filter, 0: none
    lines[:, 1:] = image
    deflate = zlib.compressobj(FASTEST, strategy=zlib.Z_RLE)
    return HEAD + _chunk(b"IDAT", deflate.compress(lines.tobytes()) + deflate.flush()) + END


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEAD = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
END = _chunk(b"IEND", b"")


def read_image(content: bytes) -> Tensor:
    """An upload of 28x28 as float32 `(1, 1, 28, 28)` in [0, 1]."""
    with Image.open(io.BytesIO(content)) as opened:
        pixels = np.asarray(opened.convert("L"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None, None]


def run_batch(models: dict[str, Any], requests: list[tuple[str, Tensor]]) -> list[NDArray[np.uint8]]:
    """Images `(n, 28, 28)` for each request, in order, by one forward pass for each kind of request.

    A request is a model with latents `(n, latent_dim)`, or RECONSTRUCT with images `(n, 1, 28, 28)`.
    """
    answers: dict[int, NDArray[np.uint8]] = {}
    for kind in {kind for kind, _ in requests}:
        numbers = [number for number, (other, _) in enumerate(requests) if other == kind]
        inputs = [requests[number][1] for number in numbers]
        with torch.no_grad():
            if kind == RECONSTRUCT:
                mean, _ = models["vae"].encode(torch.cat(inputs))
                images = models["vae"].decode(mean)
            else:
                images = models[kind].generate(torch.cat(inputs))
        for number, part in zip(numbers, torch.split(images, [len(part) for part in inputs]), strict=True):
            answers[number] = to_uint8(part)
    return [answers[number] for number in range(len(requests))]

"""What every peer does beside serving: load the archives, draw latents, read and write PNG. Knows no framework."""

import base64
import io
import json
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LATENT_DIM = {"gan": 100, "vae": 16}
FASTEST, USUAL = 1, 6  # levels of zlib


def knobs() -> dict[str, Any]:
    """What the harness chose for this server: `workers`, `threads`, `max_batch_rows`, ..."""
    chosen: dict[str, Any] = json.loads(os.environ["BENCH_KNOBS"])
    return chosen


def port() -> int:
    """Where the harness asks."""
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


def read_image(content: bytes) -> Tensor:
    """An upload of 28x28 as float32 `(1, 1, 28, 28)` in [0, 1]."""
    with Image.open(io.BytesIO(content)) as opened:
        pixels = np.asarray(opened.convert("L"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None, None]


def reconstruct(model: Any, images: Tensor) -> Tensor:
    """Encode, and decode the mean of the posterior: `(B, 1, 28, 28)` to the same."""
    mean, _ = model.encode(images)
    decoded: Tensor = model.decode(mean)
    return decoded

"""Checkpoints of tiny networks, written as the capability table has them."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import TensorRecord, with_checksum

Run = Callable[..., Any]


class Vae(torch.nn.Module):
    """Latents of 3 numbers, images of 4 x 4 pixels."""

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents.repeat(1, 6)[:, :16].view(-1, 1, 4, 4))

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents)

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.flatten(1)[:, :3]
        return mean, -mean


class Autoencoder(torch.nn.Module):
    """A deterministic code of 8 x 8 pixels in, 4 x 4 pixels out."""

    @torch.jit.export
    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents.repeat(1, 6)[:, :16].view(-1, 1, 4, 4))


def archive_of(module: torch.nn.Module) -> bytes:
    """The TorchScript archive of a module."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), buffer)
    return buffer.getvalue()


def described(file: str, content: bytes, **deviation: float) -> dict[str, Any]:
    """The entry of an archive in the manifest."""
    digest = hashlib.sha256(content).hexdigest()
    return {"file": file, "digest": digest, "bytes": len(content), "deviation": deviation or None}


def fields(
    name: str,
    *capabilities: str,
    latent_dim: int | None = 3,
    side: int = 4,
    input_side: int | None = None,
    conditional: bool = False,
    classes: Sequence[str] = (),
    priors: Sequence[str] = ("normal",),
    module: torch.nn.Module | None = None,
) -> dict[str, Any]:
    """The fields of a manifest. The golden outputs are those of `module`, zeros without one."""
    shapes: dict[Symbol, tuple[int, ...]] = {
        Symbol.IMAGE: (1, side, side),
        Symbol.INPUT_IMAGE: (1, input_side or side, input_side or side),
        Symbol.LABEL: (),
        Symbol.LOGIT: (),
    }
    if latent_dim is not None:
        shapes |= {Symbol.LATENT: (latent_dim,), Symbol.NOISE: (latent_dim + ("fitted" in priors),)}
    golden = {}
    for capability in capabilities:
        row = CAPABILITIES[capability]
        labelled = row.labels == "always" or (row.labels == "if conditional" and conditional)
        inputs: list[NDArray[Any]] = [
            np.random.default_rng(0).random((4, *shapes.get(symbol, (1,))), np.float32) for symbol in row.inputs
        ]
        inputs += [np.arange(4) % max(1, len(classes))] * labelled
        outputs: Any = [np.zeros((4, *shapes.get(symbol, (1,))), np.float32) for symbol in row.outputs]
        if module is not None:
            found = getattr(module, capability)(*map(torch.from_numpy, inputs))
            outputs = [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
        golden[capability] = {
            "inputs": [TensorRecord.of(each).model_dump() for each in inputs],
            "outputs": [TensorRecord.of(each).model_dump() for each in outputs],
            "tolerance": 1e-4,
        }
    return {
        "name": name,
        "family": "tiny",
        "capabilities": list(capabilities),
        "conditional": conditional,
        "latent_dim": latent_dim,
        "priors": list(priors),
        "noise_dim": latent_dim and latent_dim + ("fitted" in priors),
        "image": {"shape": [1, side, side], "normalization": None},
        "input_image": input_side and {"shape": [1, input_side, input_side], "normalization": None},
        "classes": list(classes),
        "archives": {"float32": described(f"{name}.pt", b"-")},
        "dataset": {"name": "none", "digest": "0" * 64, "train_images": 1},
        "training": {
            "config": {},
            "seed": 0,
            "epochs": 1,
            "parameters": {},
            "losses": {},
            "versions": {},
            "source_commit": "unknown",
        },
        "golden": golden,
    }


def write(models: Path, name: str, module: torch.nn.Module, *capabilities: str, **options: Any) -> Path:
    """A checkpoint of a module in a directory of models: the folder of the checkpoint."""
    folder = models / name
    folder.mkdir(parents=True)
    content = archive_of(module)
    manifest = fields(name, *capabilities, module=module, **options)
    manifest["archives"]["float32"] = described(f"{name}.pt", content)
    (folder / f"{name}.pt").write_bytes(content)
    (folder / "card.md").write_text(f"# {name}\n")
    (folder / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    return folder


def write_vae(models: Path, name: str = "vae") -> Path:
    """A checkpoint of `Vae`."""
    return write(models, name, Vae(), "generate", "decode", "encode")


@contextmanager
def edited(folder: Path) -> Iterator[dict[str, Any]]:
    """The fields of a manifest, to be changed."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    yield manifest
    path.write_text(json.dumps(with_checksum(manifest)))

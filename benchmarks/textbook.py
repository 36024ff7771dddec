"""The textbook form of a shipped archive: the same weights in the layers that training has. Knows no server.

The export moved weights around and changed none in float32, so that the way back is exact.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Archive, Manifest
from training.families.discriminators import Discriminator
from training.families.gan import GanArchive, Generator
from training.families.mixtures import Mixtures
from training.families.vae import Decoder, Encoder, FittedVaeArchive, VaeArchive
from training.torchscript import script


def write_textbook(source: Path, target: Path) -> None:
    """The checkpoint in `source` as one in `target` with a single, textbook archive in float32.

    Raises RuntimeError where the weights do not fit the layers.
    """
    manifest = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    weights = dict(torch.jit.load(source / manifest.archives["float32"].file).state_dict())  # type: ignore[no-untyped-call]
    content, _ = script(FAMILIES[manifest.family](weights))
    digest = hashlib.sha256(content).hexdigest()
    archive = Archive(file=f"{manifest.name}-{digest[:12]}.pt", digest=digest, bytes=len(content))
    target.mkdir(parents=True)
    (target / archive.file).write_bytes(content)
    plain = manifest.model_copy(update={"archives": {"float32": archive}})
    (target / "manifest.json").write_bytes(plain.file_content())


def textbook_gan(weights: dict[str, Tensor]) -> nn.Module:
    """Generator and discriminator as `training.families.gan` has them."""
    generator, discriminator = Generator(), Discriminator()
    generator.load_state_dict(
        dense_of(weights, "generator.0.dense", 128)
        | {f"up1.{part}": weights[f"generator.1.{part}"] for part in ("weight", "bias")}
        | {f"up2.{part}": weights[f"generator.2.{part}"] for part in ("weight", "bias")}
        | {
            "to_image.weight": kernel_of(weights["generator.3.weight"], 7)[None],
            "to_image.bias": weights["generator.3.bias"],
        }
    )
    discriminator.load_state_dict(under(weights, "discriminator."))
    return GanArchive(generator, discriminator).eval()


def textbook_vae(weights: dict[str, Tensor]) -> nn.Module:
    """Encoder and decoder as `training.families.vae` has them."""
    encoder, decoder = Encoder(), Decoder()
    # At stride 1 a transposed convolution has its kernel turned by half a turn.
    kernel = kernel_of(weights["decoder.3.weight"], 3).flip(1, 2)[:, None]
    state = {
        name.replace("dense", "layers.0"): value for name, value in dense_of(weights, "decoder.0.dense", 64).items()
    }
    state |= {f"layers.2.{part}": weights[f"decoder.1.{part}"] for part in ("weight", "bias")}
    state |= {f"layers.4.{part}": weights[f"decoder.2.{part}"] for part in ("weight", "bias")}
    decoder.load_state_dict(state | {"layers.6.weight": kernel, "layers.6.bias": weights["decoder.3.bias"]})
    encoder.load_state_dict(under(weights, "encoder."))
    mixtures = under(weights, "mixtures.")
    if not mixtures:
        return VaeArchive(encoder, decoder).eval()
    return FittedVaeArchive(encoder, decoder, Mixtures(**mixtures)).eval()


FAMILIES: dict[str, Any] = {"gan": textbook_gan, "vae": textbook_vae}


def under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def dense_of(weights: dict[str, Tensor], name: str, channels: int) -> dict[str, Tensor]:
    """A dense layer's rows from (y, x, channel) back to (channel, y, x)."""
    matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    order = torch.arange(len(bias)).view(-1, channels).T.flatten()
    return {"dense.weight": matrix[order], "dense.bias": bias[order]}


def kernel_of(blocks: Tensor, size: int) -> Tensor:
    """The kernel `(in, K, K)` that the 16 kernels of a block hold at 16 offsets."""
    return blocks[0, :, :size, :size]

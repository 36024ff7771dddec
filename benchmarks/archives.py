"""The TorchScript archives that the benchmarks serve, and the textbook form of the shipped ones."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from benchmarks.conditions import has_bfloat16
from benchmarks.paths import MODELS, SHIPPED

File = Literal["plain", "fast"]
FILES: tuple[File, ...] = get_args(File)
NAMES = ("gan", "vae")


class TextbookGan(nn.Module):
    """The generator of `gan` in the layers that it was trained in."""

    def __init__(self, weights: dict[str, Tensor], contrast: float) -> None:
        super().__init__()
        assert contrast == 1, "the family chooses no contrast"
        self.generator = nn.Sequential(
            nn.Linear(100, 128 * 7 * 7),
            nn.Unflatten(1, (128, 7, 7)),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 1, 7, padding=3),
        )
        kernel = block_kernel(weights["generator.3.weight"], 7)[None]
        load_decoder(self.generator, weights, "generator", channels=128, layers=(3, 5, 7), last_kernel=kernel)

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        """Latents `(B, 100)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return torch.sigmoid(self.generator(latents))


class TextbookVae(nn.Module):
    """Encoder and decoder of `vae` in the layers that they were trained in."""

    def __init__(self, weights: dict[str, Tensor], contrast: float) -> None:
        super().__init__()
        self.contrast = contrast
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
        )
        self.mean = nn.Linear(128, 16)
        self.log_variance = nn.Linear(128, 16)
        self.decoder = nn.Sequential(
            nn.Linear(16, 64 * 7 * 7),
            nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, stride=1, padding=1),
        )
        for name in ("features", "mean", "log_variance"):
            getattr(self, name).load_state_dict(below(weights, f"encode_network.{name}."))
        # A transposed convolution of stride 1 is a convolution with its kernel turned by 180 degrees.
        kernel = block_kernel(weights["decode_network.0.3.weight"], 3).flip(1, 2)[:, None]
        load_decoder(self.decoder, weights, "decode_network.0", channels=64, layers=(2, 4, 6), last_kernel=kernel)

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        """Latents `(B, 16)` to images `(B, 1, 28, 28)` in [0, 1]."""
        return torch.sigmoid(self.contrast * self.decoder(latents))

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        """The same as `generate`, without its contrast."""
        return torch.sigmoid(self.decoder(latents))

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` to mean and log-variance, each `(B, 16)`."""
        features = self.features(images)
        return self.mean(features), self.log_variance(features)


TEXTBOOK: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "gan": (TextbookGan, ("generate",)),
    "vae": (TextbookVae, ("generate", "decode", "encode")),
}


def load_decoder(
    network: nn.Sequential,
    weights: dict[str, Tensor],
    name: str,
    channels: int,
    layers: tuple[int, ...],
    last_kernel: Tensor,
) -> None:
    """Load the shipped weights below `name`, which the export rearranged and, in float32, did not change."""
    matrix, bias = weights[f"{name}.0.dense.weight"], weights[f"{name}.0.dense.bias"]
    order = torch.arange(len(bias)).view(-1, channels).T.flatten()  # from (y, x, channel) to (channel, y, x)
    state = {"0.weight": matrix[order], "0.bias": bias[order]}
    for number, layer in enumerate(layers, 1):
        state |= {f"{layer}.{part}": weights[f"{name}.{number}.{part}"] for part in ("weight", "bias")}
    network.load_state_dict(state | {f"{layers[-1]}.weight": last_kernel})


def block_kernel(blocks: Tensor, size: int) -> Tensor:
    """The kernel `(in, size, size)` that the export stored once for each pixel of a 4x4 block."""
    return blocks[0, :, :size, :size]


def below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, named without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_archive(path: Path) -> Any:
    """An archive as a module with the methods that it exports."""
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.load(path).eval()  # type: ignore[no-untyped-call]


def write_checkpoint(module: nn.Module, source: Path, target: Path, capabilities: tuple[str, ...]) -> None:
    """Write a module as the checkpoint `target`, in place of what is there.

    The manifest is that of the checkpoint `source`, reduced to the capabilities, with latents drawn from N(0, I).
    """
    manifest = json.loads((source / "manifest.json").read_text())
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module.eval()).save(str(target / "archive.pt"))  # type: ignore[no-untyped-call]
    content = (target / "archive.pt").read_bytes()
    archive = {"file": "archive.pt", "digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    golden = {name: manifest["golden"][name] for name in capabilities}
    for name in ("checksum", "noise_dim"):
        manifest.pop(name, None)
    manifest |= {"name": target.name, "capabilities": capabilities, "priors": ["normal"], "golden": golden}
    (target / "manifest.json").write_text(json.dumps(manifest | {"archives": {"float32": archive}}))


def write_textbook(source: Path, target: Path) -> None:
    """Write the shipped checkpoint `source` with one textbook archive in float32."""
    kind, capabilities = TEXTBOOK[source.name]
    weights = load_archive(source / entries(source)["float32"]["file"]).state_dict()
    contrast = json.loads((source / "manifest.json").read_text())["training"]["contrast"]
    write_checkpoint(kind(weights, contrast), source, target, capabilities)


def prepare_archives() -> None:
    """Make `.bench/models/fast`, copies of shipped checkpoints, and `.bench/models/plain`, their textbook form."""
    shutil.rmtree(MODELS, ignore_errors=True)
    for name in NAMES:
        shutil.copytree(SHIPPED / name, MODELS / "fast" / name)
        write_textbook(SHIPPED / name, MODELS / "plain" / name)


def entries(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each archive, by precision: float32 first, bfloat16 where the processor has it."""
    archives: dict[str, dict[str, Any]] = json.loads((checkpoint / "manifest.json").read_text())["archives"]
    return {name: archives[name] for name in ("float32", "bfloat16")[: 1 + has_bfloat16()] if name in archives}


def archive_path(file: File, name: str) -> Path:
    """The archive that peers load: in bfloat16 where the service would choose it."""
    checkpoint = MODELS / file / name
    return checkpoint / str([*entries(checkpoint).values()][-1]["file"])


def digests() -> dict[str, str]:
    """SHA-256 of the shipped archives that the figures are of, by model."""
    return {name: str([*entries(SHIPPED / name).values()][-1]["digest"]) for name in NAMES}

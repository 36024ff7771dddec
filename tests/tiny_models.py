"""Tiny checkpoints, one for each kind of model that the service supports: real archives with random weights."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import TensorRecord, with_checksum

LATENT_DIM, PIXELS, COMPONENTS = 6, 28 * 28, 3
SMALL_SIDE, SKETCH_SIDE = 14, 7
DIGITS = tuple("0123456789")
GARMENTS = ("Ankle boot", "T-shirt/top", "Bag")  # names with spaces and signs


def to_images(logits: Tensor) -> Tensor:
    """`(n, 784)` to `(n, 1, 28, 28)` in [0, 1]."""
    return torch.sigmoid(logits).view(-1, 1, 28, 28)


class ConditionalGan(nn.Module):
    """A generator and a discriminator with an embedding of the label."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, LATENT_DIM)
        self.generator = nn.Linear(LATENT_DIM, PIXELS)
        self.discriminator = nn.Linear(PIXELS, LATENT_DIM)

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        return to_images(self.generator(latents + self.embedding(labels)))

    @torch.jit.export
    def discriminate(self, images: Tensor, labels: Tensor) -> Tensor:
        features: Tensor = self.discriminator(images.flatten(1)) * self.embedding(labels)
        return features.sum(dim=1)


class ConditionalDecoder(nn.Module):
    """Latents and labels to images of any size."""

    def __init__(self, classes: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.embedding = nn.Embedding(classes, LATENT_DIM)
        self.decoder = nn.Linear(LATENT_DIM, side**2)

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        # Clamped: of 7x7 pixels a sigmoid computes the last ones differently in some batches.
        logits = self.decoder(latents + self.embedding(labels))
        return torch.clamp(logits, 0, 1).view(-1, 1, self.side, self.side)


class ConditionalVae(nn.Module):
    """An encoder and a decoder with an embedding of the label."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, LATENT_DIM)
        self.encoder = nn.Linear(PIXELS, LATENT_DIM)
        self.decoder = nn.Linear(LATENT_DIM, PIXELS)

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.decode(latents, labels)

    @torch.jit.export
    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        return to_images(self.decoder(latents + self.embedding(labels)))

    @torch.jit.export
    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(images.flatten(1)) + self.embedding(labels)
        return mean, torch.tanh(mean) - 1


class ConditionalFittedVae(ConditionalVae):
    """A conditional VAE with a fitted prior: one normal distribution a class."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.means = nn.Parameter(2 * torch.randn(classes, LATENT_DIM))

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.means[labels] + 0.5 * noise[:, :-1]


class Decoder(nn.Module):
    """Latents to images."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENT_DIM, PIXELS)

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents)

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return to_images(self.decoder(latents))


class Autoencoder(Decoder):
    """A deterministic encoder, which may take images of another size, and a decoder."""

    def __init__(self, input_side: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(input_side**2, LATENT_DIM)

    @torch.jit.export
    def embed(self, images: Tensor) -> Tensor:
        return torch.tanh(self.encoder(images.flatten(1)))


class FittedVae(Decoder):
    """An unconditional VAE with a fitted prior: a mixture of normal distributions for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, LATENT_DIM)
        self.means = nn.Parameter(2 * torch.randn(classes, COMPONENTS, LATENT_DIM))
        self.scales = nn.Parameter(0.1 + torch.rand(classes, COMPONENTS, LATENT_DIM))
        shares = torch.rand(classes, COMPONENTS)
        self.bounds = nn.Parameter((shares / shares.sum(1, keepdim=True)).cumsum(1)[:, :-1])

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(images.flatten(1))
        return mean, torch.tanh(mean) - 1

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise[:, -1:])
        component = (uniform > self.bounds[labels]).sum(dim=1)
        return self.means[labels, component] + self.scales[labels, component] * noise[:, :-1]


class Critic(nn.Module):
    """A discriminator alone: a model without latents."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator = nn.Linear(PIXELS, 1)

    @torch.jit.export
    def discriminate(self, images: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(images.flatten(1))
        return logits[:, 0]


class Classifier(nn.Module):
    """Images to the probabilities of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(PIXELS, classes)

    @torch.jit.export
    def classify(self, images: Tensor) -> Tensor:
        return torch.softmax(self.classifier(images.flatten(1)), dim=1)


class Upscaler(nn.Module):
    """Images enlarged by bilinear interpolation."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.enlarge = nn.Upsample(scale_factor=factor, mode="bilinear")

    @torch.jit.export
    def upscale(self, images: Tensor) -> Tensor:
        enlarged: Tensor = self.enlarge(images)
        return enlarged


class SmallVae(nn.Module):
    """Latents of 3 numbers, images of 4 x 4 pixels, no weights."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents)

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents.repeat(1, 6)[:, :16].view(-1, 1, 4, 4))

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.flatten(1)[:, :3]
        return mean, -mean


def write_checkpoints(directory: Path) -> None:
    """A checkpoint of every kind.

    Conditional: `boots`, `cgan`, `cvae`, and `sketch`, whose images are small and do not change gradually with their
    latents. A fitted prior: `fitted`. Both: `mixed`. A deterministic encoder: `plain`, and `small`, which takes smaller
    images than it makes. Without latents: `double` and `quadruple` upscale, `reader` classifies, `referee`
    discriminates.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write(directory, "cgan", ConditionalGan(10), DIGITS, sampling=("truncation",))
        write(directory, "cvae", ConditionalVae(10), DIGITS, sampling=("temperature",))
        write(directory, "boots", ConditionalVae(3), GARMENTS, sampling=("temperature", "truncation"))
        write(directory, "mixed", ConditionalFittedVae(10), DIGITS, priors=("fitted", "normal"))
        write(directory, "fitted", FittedVae(10), DIGITS, priors=("fitted", "normal"), sampling=("temperature",))
        write(directory, "plain", Autoencoder(28), ())
        write(directory, "small", Autoencoder(SMALL_SIDE), (), input_side=SMALL_SIDE)
        write(directory, "referee", Critic(), ())
        write(directory, "reader", Classifier(10), DIGITS, box=20)
        write(directory, "double", Upscaler(2), input_side=SMALL_SIDE, box=20)
        write(directory, "quadruple", Upscaler(4), input_side=SKETCH_SIDE, box=20)
        write(directory, "sketch", ConditionalDecoder(10, SKETCH_SIDE), DIGITS, side=SKETCH_SIDE, smooth_latents=False)


def write(
    models: Path,
    name: str,
    module: nn.Module,
    classes: Sequence[str] = (),
    *,
    capabilities: Sequence[str] = (),
    latent_dim: int | None = LATENT_DIM,
    side: int = 28,
    **options: Any,
) -> Path:
    """Write a checkpoint of a module, by default with all of its capabilities; its folder.

    A module with an embedding is conditional. The other options are those of `fields`.
    """
    names = capabilities or [each for each in CAPABILITIES if hasattr(module, each)]
    options |= {"latent_dim": latent_dim if {"generate", "decode"} & set(names) else None, "side": side}
    manifest = fields(name, *names, module=module, classes=classes, conditional=hasattr(module, "embedding"), **options)
    content = archive_of(module)
    manifest["archives"]["float32"] = described(f"{name}.pt", content)
    folder = models / name
    folder.mkdir(parents=True)
    (folder / f"{name}.pt").write_bytes(content)
    (folder / "card.md").write_text(f"# {name}\n")
    (folder / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    return folder


def write_vae(models: Path, name: str = "vae", *capabilities: str) -> Path:
    """Write a checkpoint of `SmallVae`; its folder."""
    return write(models, name, SmallVae(), capabilities=capabilities, latent_dim=3, side=4)


@contextmanager
def edited(folder: Path) -> Iterator[dict[str, Any]]:
    """The fields of a manifest, to be changed."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    yield manifest
    path.write_text(json.dumps(with_checksum(manifest)))


def archive_of(module: nn.Module) -> bytes:
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
    sampling: Sequence[str] = (),
    smooth_latents: bool = True,
    box: int | None = None,
    module: nn.Module | None = None,
) -> dict[str, Any]:
    """The fields of a manifest. The golden outputs are those of `module`, zeros without one.

    box: of the normalization of uploads; None: they are only resized.
    """
    shapes: dict[Symbol, tuple[int, ...]] = {
        Symbol.IMAGE: (1, side, side),
        Symbol.INPUT_IMAGE: (1, input_side or side, input_side or side),
        Symbol.LABEL: (),
        Symbol.LOGIT: (),
        Symbol.PROBABILITIES: (len(classes),),
        Symbol.NATS: (),
    }
    if latent_dim is not None:
        shapes |= {Symbol.LATENT: (latent_dim,), Symbol.NOISE: (latent_dim + ("fitted" in priors),)}
    chance, golden = np.random.default_rng(0), {}
    for capability in capabilities:
        row = CAPABILITIES[capability]
        labelled = row.labels == "always" or (row.labels == "if conditional" and conditional)
        inputs: list[NDArray[Any]] = [chance.random((4, *shapes.get(each, (1,))), np.float32) for each in row.inputs]
        inputs += [np.arange(4) % max(1, len(classes))] * labelled
        outputs: Any = [np.zeros((4, *shapes.get(symbol, (1,))), np.float32) for symbol in row.outputs]
        if module is not None:
            with torch.no_grad():
                found = getattr(module, capability)(*map(torch.from_numpy, inputs))
            outputs = [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
        golden[capability] = {
            "inputs": [TensorRecord.of(each).model_dump() for each in inputs],
            "outputs": [TensorRecord.of(each).model_dump() for each in outputs],
            "tolerance": 1e-4,
        }
    return {
        "name": name,
        "family": type(module).__name__.lower(),
        "capabilities": list(capabilities),
        "conditional": conditional,
        "latent_dim": latent_dim,
        "priors": list(priors),
        "sampling": list(sampling),
        "smooth_latents": smooth_latents,
        "noise_dim": latent_dim and latent_dim + ("fitted" in priors),
        "image": {"shape": [1, side, side], "normalization": box and {"box": box}},
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

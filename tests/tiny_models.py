"""Tiny checkpoints, one for each kind of model that the service supports: real archives with random weights."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import (
    Archive,
    Control,
    DatasetUsed,
    Golden,
    ImageForm,
    Manifest,
    Prior,
    TensorRecord,
    TrainingRecord,
)

LATENT_DIM, PIXELS, COMPONENTS = 6, 28 * 28, 3
SMALL_SIDE = 14
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


def write_checkpoints(directory: Path) -> None:
    """A checkpoint of every kind.

    Conditional: `boots`, `cgan`, `cvae`. A fitted prior: `fitted`. Both: `mixed`. A deterministic encoder: `plain`, and
    `upscaler`, which takes smaller images than it makes. A discriminator alone: `referee`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write(directory, "cgan", ConditionalGan(10), DIGITS, sampling=("truncation",))
        write(directory, "cvae", ConditionalVae(10), DIGITS, sampling=("temperature",))
        write(directory, "boots", ConditionalVae(3), GARMENTS, sampling=("temperature", "truncation"))
        write(directory, "mixed", ConditionalFittedVae(10), DIGITS, priors=("fitted", "normal"))
        write(directory, "fitted", FittedVae(10), DIGITS, priors=("fitted", "normal"), sampling=("temperature",))
        write(directory, "plain", Autoencoder(28), ())
        write(directory, "upscaler", Autoencoder(SMALL_SIDE), (), input_side=SMALL_SIDE)
        write(directory, "referee", Critic(), ())


def write(
    directory: Path,
    name: str,
    module: nn.Module,
    classes: tuple[str, ...],
    *,
    priors: tuple[Prior, ...] = ("normal",),
    sampling: tuple[Control, ...] = (),
    input_side: int | None = None,
) -> Path:
    """Write a checkpoint of a module and return its directory. A module with an embedding is conditional."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    capabilities = [capability for capability in CAPABILITIES if hasattr(module, capability)]
    fields: dict[str, Any] = {
        "name": name,
        "family": type(module).__name__.lower(),
        "capabilities": capabilities,
        "conditional": hasattr(module, "embedding"),
        "latent_dim": LATENT_DIM if "generate" in capabilities else None,
        "noise_dim": LATENT_DIM + ("fitted" in priors),
        "priors": priors,
        "sampling": sampling,
        "image": image_form(28),
        "input_image": input_side and image_form(input_side),
        "classes": classes,
        "archives": {"float32": Archive(file=f"{name}.pt", digest=digest, bytes=len(content), deviation=None)},
        "dataset": DatasetUsed(name="none", digest="0" * 64, train_images=1),
        "training": TrainingRecord(
            config={}, seed=0, epochs=1, parameters={}, losses={}, versions={}, source_commit="unknown"
        ),
    }
    shapes = Manifest.model_construct(**fields)  # not validated: the golden rows need the shapes
    golden = {capability: golden_rows(shapes, module, capability) for capability in capabilities}
    (directory / name).mkdir()
    (directory / name / f"{name}.pt").write_bytes(content)
    (directory / name / "manifest.json").write_bytes(Manifest(**fields, golden=golden).file_content())
    return directory / name


def image_form(side: int) -> ImageForm:
    """Square images, which uploads are resized to."""
    return ImageForm(shape=(1, side, side), normalization=None)


@torch.no_grad()
def golden_rows(manifest: Manifest, module: Any, capability: str) -> Golden:
    """Four rows through a capability."""
    inputs = [random_rows(manifest, symbol) for symbol in manifest.inputs(capability)]
    found = getattr(module, capability)(*inputs)
    outputs = found if isinstance(found, tuple) else (found,)
    records = ([TensorRecord.of(tensor.numpy()) for tensor in tensors] for tensors in (inputs, outputs))
    return Golden(**dict(zip(("inputs", "outputs"), records, strict=True)), tolerance=1e-4)


def random_rows(manifest: Manifest, symbol: Symbol) -> Tensor:
    """Four rows of an input."""
    if symbol is Symbol.LABEL:
        return torch.arange(4) % len(manifest.classes)
    shape = (4, *manifest.shape(symbol))
    return torch.rand(shape) if symbol in {Symbol.IMAGE, Symbol.INPUT_IMAGE} else torch.randn(shape)

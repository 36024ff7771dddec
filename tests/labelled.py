"""Tiny checkpoints of every kind that takes labels: real archives with random weights."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.capabilities import CapabilityName as Capability
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
DIGITS = tuple("0123456789")
GARMENTS = ("Ankle boot", "T-shirt/top", "Bag")  # a name may hold what a number or a word cannot


class ConditionalGan(nn.Module):
    """A generator and a discriminator that see the label as a learned vector."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, LATENT_DIM)
        self.generator = nn.Linear(LATENT_DIM, PIXELS)
        self.discriminator = nn.Linear(PIXELS, LATENT_DIM)

    @torch.jit.export
    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        return torch.sigmoid(self.generator(latents + self.embedding(labels))).view(-1, 1, 28, 28)

    @torch.jit.export
    def discriminate(self, images: Tensor, labels: Tensor) -> Tensor:
        features: Tensor = self.discriminator(images.flatten(1)) * self.embedding(labels)
        return features.sum(dim=1)


class ConditionalVae(nn.Module):
    """An encoder and a decoder that see the label as a learned vector."""

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
        return torch.sigmoid(self.decoder(latents + self.embedding(labels))).view(-1, 1, 28, 28)

    @torch.jit.export
    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(images.flatten(1)) + self.embedding(labels)
        return mean, torch.tanh(mean) - 1


class FittedVae(nn.Module):
    """A VAE that knows no labels, and for each a mixture of normal distributions of its latents."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, LATENT_DIM)
        self.decoder = nn.Linear(LATENT_DIM, PIXELS)
        self.means = nn.Parameter(2 * torch.randn(classes, COMPONENTS, LATENT_DIM))
        self.scales = nn.Parameter(0.1 + torch.rand(classes, COMPONENTS, LATENT_DIM))
        shares = torch.rand(classes, COMPONENTS)
        self.bounds = nn.Parameter((shares / shares.sum(1, keepdim=True)).cumsum(1)[:, :-1])

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents)

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(latents)).view(-1, 1, 28, 28)

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(images.flatten(1))
        return mean, torch.tanh(mean) - 1

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise[:, -1:])
        component = (uniform > self.bounds[labels]).sum(dim=1)
        return self.means[labels, component] + self.scales[labels, component] * noise[:, :-1]


class ConditionalFittedVae(ConditionalVae):
    """A conditional VAE that draws its latents from one normal distribution a class."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.means = nn.Parameter(2 * torch.randn(classes, LATENT_DIM))

    @torch.jit.export
    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.means[labels] + 0.5 * noise[:, :-1]


def write_checkpoints(directory: Path) -> None:
    """`boots`, `cgan` and `cvae`, which are conditional, `fitted`, which has a fitted prior, and `mixed`: both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write(directory, "cgan", ConditionalGan(10), DIGITS, sampling=("truncation",))
        write(directory, "cvae", ConditionalVae(10), DIGITS, sampling=("temperature",))
        write(directory, "boots", ConditionalVae(3), GARMENTS, sampling=("temperature", "truncation"))
        write(directory, "mixed", ConditionalFittedVae(10), DIGITS, priors=("fitted", "normal"))
        write(directory, "fitted", FittedVae(10), DIGITS, priors=("fitted", "normal"), sampling=("temperature",))


def write(
    directory: Path,
    name: str,
    module: nn.Module,
    classes: tuple[str, ...],
    *,
    priors: tuple[Prior, ...] = ("normal",),
    sampling: tuple[Control, ...] = (),
) -> Path:
    """A checkpoint of a module: its directory."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    golden = golden_cases(module, len(classes))
    manifest = Manifest(
        name=name,
        family=type(module).__name__.lower(),
        capabilities=tuple(golden),
        conditional=not isinstance(module, FittedVae),
        latent_dim=LATENT_DIM,
        priors=priors,
        noise_dim=LATENT_DIM + ("fitted" in priors),
        sampling=sampling,
        image=ImageForm(shape=(1, 28, 28), normalization=None),
        classes=classes,
        archives={"float32": Archive(file=f"{name}.pt", digest=digest, bytes=len(content), deviation=None)},
        dataset=DatasetUsed(name="none", digest="0" * 64, train_images=1),
        training=TrainingRecord(
            config={}, seed=0, epochs=1, parameters={}, losses={}, versions={}, source_commit="unknown"
        ),
        quality=None,
        golden=golden,
    )
    (directory / name).mkdir()
    (directory / name / f"{name}.pt").write_bytes(content)
    (directory / name / "manifest.json").write_bytes(manifest.file_content())
    return directory / name


@torch.no_grad()
def golden_cases(module: Any, classes: int) -> dict[Capability, Golden]:
    """Four rows through each capability."""
    labels, images = torch.arange(4) % classes, torch.rand(4, 1, 28, 28)
    latents, noise = torch.randn(4, LATENT_DIM), torch.randn(4, LATENT_DIM + 1)
    rows: dict[Capability, Tensor] = {
        "generate": latents,
        "decode": latents,
        "encode": images,
        "discriminate": images,
        "prior": noise,
    }
    cases: dict[Capability, Golden] = {}
    for capability, given in rows.items():
        if hasattr(module, capability):
            takes_labels = capability == "prior" or not isinstance(module, FittedVae)
            inputs = (given, labels) if takes_labels else (given,)
            outputs = getattr(module, capability)(*inputs)
            cases[capability] = Golden(
                inputs=tuple(TensorRecord.of(each.numpy()) for each in inputs),
                outputs=tuple(
                    TensorRecord.of(each.numpy()) for each in (outputs if isinstance(outputs, tuple) else (outputs,))
                ),
                tolerance=1e-4,
            )
    return cases

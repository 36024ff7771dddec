"""Checkpoints that fail on demand: real archives whose rows say what is to go wrong. Knows no server."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from app.checkpoints.manifest import with_checksum
from app.inference.machine import find_device
from app.inference.runtime import without_deprecations

# In the first number of a latent, which a caller may choose: up to 1000 is taken.
RAISE, HANG, NAN = 901.0, 902.0, 903.0


class Faulty(torch.nn.Module):
    """A generator that computes what another one does, but for latents that are marked."""

    def __init__(self, sound: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.sound = sound
        self.failing, self.hanging, self.poisoned = RAISE, HANG, NAN

    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, latent)` to images; raises, never ends, or gives NaN where a latent is marked so."""
        marks = latents[:, 0]
        if bool((marks == self.failing).any()):
            raise RuntimeError("this latent makes the network fail")
        while bool((marks == self.hanging).any()):
            marks = torch.relu(marks)  # something that no pass over the graph can take out
        images: torch.Tensor = self.sound.generate(latents)
        poison = torch.where(marks == self.poisoned, float("nan"), 0.0).to(images.dtype)
        return images + poison[:, None, None, None]


def write_faulty(source: Path, target: Path) -> None:
    """The generator at `source` as a checkpoint named as the folder `target` is: float32, and only `generate`."""
    manifest = json.loads((source / "manifest.json").read_text())
    with without_deprecations():
        sound = torch.jit.load(  # type: ignore[no-untyped-call]
            source / manifest["archives"]["float32"]["file"], map_location=find_device("cpu")
        )
    write_generator(Faulty(sound), manifest, target)


def write_generator(module: torch.nn.Module, manifest: dict[str, Any], target: Path) -> None:
    """A checkpoint of a module that has the method `generate`, in place of what is at `target`, named as that folder.

    manifest: of a checkpoint whose latents and golden images the module is to have; only `generate` is left of it.
    """
    with without_deprecations():
        script = torch.jit.script(module)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    script.save(str(target / "faulty.pt"))  # type: ignore[no-untyped-call]
    content = (target / "faulty.pt").read_bytes()
    archive: dict[str, Any] = {
        "file": "faulty.pt",
        "digest": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    kept = {"capabilities": ["generate"], "priors": ["normal"], "noise_dim": manifest["latent_dim"]}
    golden = {"generate": manifest["golden"]["generate"]}
    changed = manifest | kept | {"name": target.name, "archives": {"float32": archive}, "golden": golden}
    (target / "manifest.json").write_text(json.dumps(with_checksum(changed)))

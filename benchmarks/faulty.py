"""A checkpoint that fails on demand: a real archive in which the first number of a latent chooses the failure."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.archives import entries, load_archive, write_checkpoint

# The service accepts numbers up to 1000 in a latent.
RAISE, HANG, NAN = 901.0, 902.0, 903.0


class Faulty(torch.nn.Module):
    """A generator that fails on marked latents and otherwise gives the images of another one."""

    def __init__(self, sound: Any) -> None:
        super().__init__()
        self.sound = sound
        self.failing, self.hanging, self.poisoned = RAISE, HANG, NAN

    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, latent)` to images; raises, never returns, or gives NaN where a latent is marked."""
        marks = latents[:, 0]
        if bool((marks == self.failing).any()):
            raise RuntimeError("this latent makes the network fail")
        while bool((marks == self.hanging).any()):
            marks = torch.relu(marks)  # freezing the graph must not remove the loop
        images: torch.Tensor = self.sound.generate(latents)
        poison = torch.where(marks == self.poisoned, float("nan"), 0.0).to(images.dtype)
        return images + poison[:, None, None, None]


def write_faulty(source: Path, target: Path) -> None:
    """Write the generator of the checkpoint `source` as the faulty checkpoint `target`, in float32."""
    sound = load_archive(source / entries(source)["float32"]["file"])
    write_checkpoint(Faulty(sound), source, target, ("generate",))

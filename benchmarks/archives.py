"""The TorchScript archives that every server is measured with. Knows no server."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from app.inference.machine import computes_in_bfloat16
from benchmarks.places import MODELS, SHIPPED
from benchmarks.textbook import write_textbook

File = Literal["plain", "fast"]
FILES: tuple[File, ...] = get_args(File)
NAMES = ("gan", "vae")


def prepare_archives() -> None:
    """Make `.bench/models/plain` and `.bench/models/fast`, each a directory of checkpoints.

    `fast` are the shipped ones, `plain` the same weights in textbook layers.
    """
    for file in FILES:
        shutil.rmtree(MODELS / file, ignore_errors=True)
    for name in NAMES:
        shutil.copytree(SHIPPED / name, MODELS / "fast" / name)
        write_textbook(SHIPPED / name, MODELS / "plain" / name)


def archive_path(file: File, name: str) -> Path:
    """The `.pt` that peers load: of `fast` the bfloat16 one, if there is one and the processor can."""
    return MODELS / file / name / str(_chosen(file, name)["file"])


def digests(file: File) -> dict[str, str]:
    """SHA-256 of the shipped archives that a file's weights come from, by model.

    Not of the textbook archives themselves: TorchScript writes into them which lines they were scripted from.
    """
    return {name: str(_chosen(file, name, SHIPPED)["digest"]) for name in NAMES}


def _chosen(file: File, name: str, directory: Path | None = None) -> dict[str, Any]:
    directory = MODELS / file if directory is None else directory
    manifest = json.loads((directory / name / "manifest.json").read_text())
    archives: dict[str, dict[str, Any]] = manifest["archives"]
    if file == "fast" and "bfloat16" in archives and computes_in_bfloat16(torch.device("cpu")):
        return archives["bfloat16"]
    return archives["float32"]

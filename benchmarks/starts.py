"""Faults at the start: what `python -m app` does of a bad checkpoint or device, as a process of its own.

Knows no load, and no service that runs.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from app.checkpoints.manifest import with_checksum
from benchmarks.faulty import write_generator
from benchmarks.machine import facts
from benchmarks.places import RESULTS, ROOT, SCRATCH
from benchmarks.processes import free_ports
from benchmarks.supervised import environment_of

MODELS = SCRATCH / "starts" / "models"
# The last by name of those that ship, so that all others are loaded before the fault is met.
NAME = "vae"
LIMIT_S, PATIENCE_S = 10.0, 60.0
DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


class Constant(torch.nn.Module):
    """A generator whose images are of one value, all `side` pixels wide and high."""

    def __init__(self, side: int, value: float) -> None:
        super().__init__()
        self.side, self.value = side, value

    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, latent)` to images `(B, 1, side, side)`."""
        return torch.full((latents.shape[0], 1, self.side, self.side), self.value)


@dataclass(frozen=True)
class BadStart:
    """What is done to a copy of the shipped checkpoints, a directory, before the start.

    names: what the one line has to say first: a file, from the directory's parent on, or the device.
    """

    fault: str
    names: str
    do: Callable[[Path], object] = lambda _: None
    environment: dict[str, str] = field(default_factory=dict)


class Start(BaseModel):
    """How one start ended. Seconds; `status` is None where it did not end, and negative for a signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    names: str
    seconds: float
    status: int | None
    lines: list[str]  # on the error stream at log level `warning`; messages where they are records

    @property
    def kept(self) -> bool:
        """Whether all that is promised was seen."""
        return not list(broken(self))


def starts() -> list[BadStart]:
    """The rows of the table."""
    device = "cuda:99" if torch.cuda.is_available() else "cuda"
    archive = f"models/{NAME}/{archive_of(ROOT / 'models').name}"
    manifest = f"models/{NAME}/manifest.json"
    return [
        BadStart("directory missing", "models:", shutil.rmtree),
        BadStart("manifest missing", manifest, lambda models: (models / NAME / "manifest.json").unlink()),
        BadStart("manifest of other latents", manifest, change_latents),
        BadStart("manifest with a bit flipped", manifest, flip_in_manifest),
        BadStart("archive missing", archive, lambda models: archive_of(models).unlink()),
        BadStart("archive truncated", archive, truncate),
        BadStart("archive with a bit flipped", archive, flip),
        BadStart("archive of another shape", f"models/{NAME}/faulty.pt", replace(Constant(32, 0.5))),
        BadStart("archive that gives NaN", f"models/{NAME}/faulty.pt", replace(Constant(28, float("nan")))),
        BadStart("device absent", f"device {device!r}", environment={"DIGITS_DEVICE": device}),
    ]


def archive_of(models: Path) -> Path:
    """The archive to be harmed: the only one that the checkpoint has."""
    (path,) = (models / NAME).glob("*.pt")
    return path


def change_latents(models: Path) -> None:
    """A manifest whose latents are wider than those that its golden images were made of."""
    path = models / NAME / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(with_checksum(manifest | {"latent_dim": manifest["latent_dim"] + 1})))


def truncate(models: Path) -> None:
    """Half an archive."""
    path = archive_of(models)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(models: Path) -> None:
    """One bit, in the middle."""
    path = archive_of(models)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_in_manifest(models: Path) -> None:
    """One bit of a number: uploads would be brought to another size than that of the training images."""
    path = models / NAME / "manifest.json"
    content = path.read_bytes()
    assert content.count(b'"box": 20') == 1
    path.write_bytes(content.replace(b'"box": 20', b'"box": 22'))


def replace(module: torch.nn.Module) -> Callable[[Path], None]:
    """Another archive, of the right digest, as a faulty export would leave it."""

    def do(models: Path) -> None:
        manifest = json.loads((models / NAME / "manifest.json").read_text())
        write_generator(module, manifest, models / NAME)

    return do


def measure() -> list[Start]:
    """Every start, one after the other."""
    found = []
    for bad in starts():
        found.append(attempt(bad))
        print(line(found[-1]), flush=True)
    return found


def attempt(bad: BadStart) -> Start:
    """One start on a fresh copy of the shipped checkpoints, until it ends or patience does."""
    shutil.rmtree(MODELS.parent, ignore_errors=True)
    shutil.copytree(ROOT / "models", MODELS)
    bad.do(MODELS)
    # From this level on, so that the one line which says why is all there is to see.
    environment = environment_of(free_ports(1)[0], MODELS) | {"DIGITS_LOG_LEVEL": "warning"} | bad.environment
    began = monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, log = process.communicate(timeout=PATIENCE_S)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            _, log = process.communicate()
            status = None
    seconds = monotonic() - began
    lines = [message(each) for each in log.splitlines()]
    return Start(fault=bad.fault, names=bad.names, seconds=seconds, status=status, lines=lines)


def message(text: str) -> str:
    """What a line of the log says, with paths below the directory that holds the copy of the checkpoints."""
    try:
        said = str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        said = text
    return said.replace(f"{MODELS.parent}/", "")


def broken(seen: Start) -> Iterator[str]:
    """What was promised and not seen."""
    if seen.status is None:
        yield f"it did not end in {PATIENCE_S:.0f} s"
    elif seen.status != 1:
        yield f"it ended with status {seen.status}"
    if seen.status is not None and seen.seconds > LIMIT_S:
        yield f"it took more than {LIMIT_S:.0f} s"
    if len(seen.lines) != 1:
        yield f"there were {len(seen.lines)} lines on stderr"
    if not any(each.startswith(f"cannot start: {seen.names}") for each in seen.lines):
        yield f"no line named {seen.names}"


def line(seen: Start) -> str:
    """A line for a person who waits."""
    verdict = "as promised" if seen.kept else f"BROKEN: {'; '.join(broken(seen))}"
    return f"start, {seen.fault}: status {seen.status} after {seen.seconds:.1f} s; {verdict}"


def markdown(found: list[Start]) -> str:
    """A table: a line a fault."""
    rows = ["| fault at the start | ends after | status | lines on stderr | the first | as promised |"]
    rows.append("| --- " * 6 + "|")
    for seen in found:
        first = f"`{shown(seen.lines[0])}`" if seen.lines else ""
        status = "none" if seen.status is None else seen.status
        verdict = "; ".join(broken(seen)) or "yes"
        rows.append(f"| {seen.fault} | {seen.seconds:.1f} s | {status} | {len(seen.lines)} | {first} | {verdict} |")
    return "\n".join(rows)


def shown(text: str) -> str:
    """A line as a cell of a table: the beginnings of digests, and no bars."""
    return DIGEST.sub(r"\1...", text).replace("|", "/")


def write(found: list[Start], path: Path = RESULTS / "starts.json") -> None:
    """Keep the starts with the facts of the machine."""
    content: dict[str, Any] = {"machine": facts("none"), "starts": [seen.model_dump(mode="json") for seen in found]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path = RESULTS / "starts.json") -> list[Start]:
    """What `write` kept."""
    return [Start.model_validate(each) for each in json.loads(path.read_text())["starts"]]

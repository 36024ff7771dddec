"""Find, verify, load, check and warm up checkpoints. Knows no HTTP.

A checkpoint that fails any check stops the start with one line that names the file and the cause.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from app.checkpoints.manifest import Archive, Capability, Golden, Manifest
from app.errors import InferenceFailed
from app.inference.runtime import Network, Runtime

log = logging.getLogger(__name__)

# TorchScript profiles a method on its first call and optimises it on the second.
WARM_UP_PASSES = 3


class CheckpointError(Exception):
    """A checkpoint that must not serve. The text is one line: the file, then the cause."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"{path}: {' '.join(cause.split())}")


@dataclass(frozen=True)
class Model:
    """A checkpoint that passed every check and is warm."""

    manifest: Manifest
    card: str | None
    networks: Mapping[Capability, Network]

    @property
    def name(self) -> str:
        """The name callers use."""
        return self.manifest.name


def load_models(directory: Path, runtime: Runtime, warm_up_rows: int) -> dict[str, Model]:
    """Every checkpoint of `directory`, by name in order. Raises CheckpointError for the first bad one.

    Each is warmed up with one row and with `warm_up_rows`, the largest batch it will see.
    """
    models = {}
    for manifest_file in find_manifests(directory):
        model = load_model(manifest_file, runtime)
        for capability, network in model.networks.items():
            warm_up(network, model.manifest.golden[capability], warm_up_rows)
        models[model.name] = model
        log.info("loaded %s, digest %s", model.name, model.manifest.digest)
    return models


def find_manifests(directory: Path) -> list[Path]:
    """The manifests one level under `directory`, in order of name. Raises CheckpointError for none."""
    if not directory.is_dir():
        raise CheckpointError(directory, "is not a directory; DIGITS_MODELS_DIR names it")
    found = []
    for entry in sorted(directory.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        manifest_file = entry / "manifest.json"
        if not manifest_file.is_file():
            raise CheckpointError(manifest_file, "is missing; every folder beside it is a checkpoint")
        found.append(manifest_file)
    if not found:
        raise CheckpointError(directory, "holds no checkpoint; `python -m training train vae` makes one")
    return found


def load_model(manifest_file: Path, runtime: Runtime) -> Model:
    """One checkpoint, verified against its digest and its golden rows. Raises CheckpointError."""
    manifest = read_manifest(manifest_file)
    archive = manifest.archives["float32"]
    path = manifest_file.parent / archive.file
    content = read_archive(path, archive)
    try:
        module = runtime.load(content)
    except RuntimeError as error:
        raise CheckpointError(path, f"is no TorchScript archive: {str(error).splitlines()[0]}") from error
    networks = {}
    for capability in manifest.capabilities:
        network = runtime.network(module, capability)
        if network is None:
            raise CheckpointError(path, f"lacks the capability {capability} that the manifest names")
        networks[capability] = network
    for capability, network in networks.items():
        check_golden(path, capability, network, manifest.golden[capability])
    return Model(manifest, read_card(manifest_file.parent / "card.md"), networks)


def read_card(path: Path) -> str | None:
    """The Markdown of a card, None where there is none. Raises CheckpointError."""
    try:
        return path.read_text("utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from error


def read_manifest(path: Path) -> Manifest:
    """Parse and check a manifest. Raises CheckpointError."""
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(path, f"{where}: {first['msg']}" if where else first["msg"]) from error
    if manifest.name != path.parent.name:
        raise CheckpointError(path, f"names the model {manifest.name}, its folder says {path.parent.name}")
    return manifest


def read_archive(path: Path, archive: Archive) -> bytes:
    """The bytes of an archive, once, so that what was verified is what is loaded. Raises CheckpointError."""
    try:
        if path.stat().st_size != archive.bytes:
            raise CheckpointError(path, f"has {path.stat().st_size} bytes, the manifest says {archive.bytes}")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != archive.digest:
        raise CheckpointError(path, f"has SHA-256 {digest}, the manifest says {archive.digest}")
    return content


def check_golden(path: Path, capability: Capability, network: Network, golden: Golden) -> None:
    """Recorded inputs must give the recorded outputs. Raises CheckpointError."""
    try:
        (rows,) = (torch.from_numpy(record.array()) for record in golden.inputs)
        expected = [torch.from_numpy(record.array()) for record in golden.outputs]
        (outputs,) = network.compute([rows])
    except (ValueError, InferenceFailed) as error:
        raise CheckpointError(path, f"{capability} fails on its golden rows: {error}") from error
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        raise CheckpointError(path, f"{capability} gives other shapes than its golden rows have")
    difference = max(float((a - b).abs().max()) for a, b in zip(outputs, expected, strict=True))
    if not difference <= golden.tolerance:
        raise CheckpointError(
            path,
            f"{capability} differs by {difference:.3g} from its golden rows, {golden.tolerance:.3g} is allowed",
        )


def warm_up(network: Network, golden: Golden, rows: int) -> None:
    """Run batches of one row and of `rows` until nothing is compiled any more."""
    row = torch.from_numpy(golden.inputs[0].array())[:1]
    for _ in range(WARM_UP_PASSES):
        network.compute([row])
        network.compute([row.expand(rows, *row.shape[1:])])

"""Find, verify, load, check and warm up checkpoints. Knows no HTTP.

A checkpoint that fails any check stops the start with one line that names the file and the cause.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.checks import CheckFailed, TooFarOff, check_golden, warm_up
from app.checkpoints.manifest import Archive, Manifest, Precision
from app.errors import OutOfMemory
from app.inference.faults import fault_of
from app.inference.runtime import MissingMethod, Network, Runtime, id_of

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that must not serve. The text is one line: the file, then the cause."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"{path}: {' '.join(cause.split())}")


@dataclass(frozen=True)
class Model:
    """A checkpoint that passed every check and is warm."""

    manifest: Manifest
    card: str | None
    precision: Precision
    facts: Mapping[str, str]  # what beside the weights its bytes may depend on
    runtime_id: str  # a hash of them
    networks: Mapping[Capability, Network]
    identical: Mapping[Capability, bool]  # whether a row was the same bits in every batch that was tried

    @property
    def name(self) -> str:
        """The name callers use."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """The SHA-256 of the archive that serves."""
        return self.manifest.archives[self.precision].digest


def load_models(directory: Path, runtime: Runtime, max_rows: int) -> dict[str, Model]:
    """Every checkpoint of `directory`, by name in order. Raises CheckpointError for the first bad one.

    `max_rows`: of the largest batch a network will see.
    """
    models = {}
    for manifest_file in find_manifests(directory):
        model = load_model(manifest_file, runtime, max_rows)
        models[model.name] = model
        log.info("loaded %s, %s, digest %s", model.name, model.precision, model.digest)
        for capability in (capability for capability, identical in model.identical.items() if not identical):
            log.warning("%s of %s: a row depends on its batch, so seeds are not byte strings", capability, model.name)
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


def load_model(manifest_file: Path, runtime: Runtime, max_rows: int) -> Model:
    """One checkpoint, verified against its digest and its golden rows, and warm. Raises CheckpointError.

    Where the runtime may choose, an archive that is too far from its golden rows, or whose rows depend on their batch,
    gives way to the next precision. An archive that does not serve is verified, too, and not opened: another processor,
    or a setting, would have it serve.
    """
    manifest = read_manifest(manifest_file)
    for archive in manifest.archives.values():
        read_archive(manifest_file.parent / archive.file, archive)
    precisions = runtime.precisions(manifest.archives)
    for precision in precisions:
        path = manifest_file.parent / manifest.archives[precision].file
        networks = load_networks(path, manifest, precision, runtime, max_rows)
        last = precision == precisions[-1]
        try:
            for capability, network in networks.items():
                check_golden(capability, network, manifest.golden[capability], precision)
        except CheckFailed as error:
            if last or not isinstance(error, TooFarOff):
                raise CheckpointError(path, str(error)) from error
            log.warning("%s: %s; float32 serves instead", path, error)
            continue
        identical = {name: warm_up(network, manifest.golden[name], max_rows) for name, network in networks.items()}
        if last or all(identical.values()):
            break
        log.warning("%s: a row depends on its batch; float32 serves instead", path)
    facts = runtime.facts(precision, max_rows)
    return Model(
        manifest=manifest,
        card=read_card(manifest_file.parent / "card.md"),
        precision=precision,
        facts=facts,
        runtime_id=id_of(facts),
        networks=networks,
        identical=identical,
    )


def load_networks(
    path: Path, manifest: Manifest, precision: Precision, runtime: Runtime, max_rows: int
) -> dict[Capability, Network]:
    """The capabilities of one archive, its digest verified before it is opened.

    Raises CheckpointError, and DeviceLost.
    """
    content = read_archive(path, manifest.archives[precision])
    try:
        networks = runtime.networks(runtime.load(content), manifest.capabilities, max_rows)
    except MissingMethod as error:
        raise CheckpointError(path, f"lacks the capability {error} that the manifest names") from error
    except (RuntimeError, MemoryError) as error:
        if isinstance(fault_of(error), OutOfMemory):
            raise CheckpointError(path, "cannot be loaded: there is no memory for it") from error
        raise CheckpointError(path, f"is no TorchScript archive: {str(error).splitlines()[0]}") from error
    return dict(zip(manifest.capabilities, networks, strict=True))


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
        cause = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(path, f"{where}: {cause}" if where else cause) from error
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

"""A model: a checkpoint that is loaded, checked and warmed up."""

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.checkpoints.manifest import Manifest, Precision
from app.checkpoints.pictures import History, Picture, PictureName, read_history, read_pictures
from app.checkpoints.store import CheckpointError, find_manifests, read_archive, read_card, read_manifest
from app.errors import CapabilityMissing, InferenceFailed, OutOfMemory
from app.inference.checks import CheckFailed, TooInaccurate, check_golden, warm_up
from app.inference.runtime import Labels, MissingMethod, Network, Rows, Runtime, id_of, service_error

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provenance:
    """What a response depends on besides the request."""

    model: str
    digest: str
    precision: Precision
    runtime: str


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint that passed every check."""

    manifest: Manifest
    card: str | None
    pictures: Mapping[PictureName, Picture]
    history: History | None
    facts: Mapping[str, str]  # of the runtime
    provenance: Provenance
    networks: Mapping[str, Network]  # by capability
    byte_identical: Mapping[str, bool]  # by capability: whether a row had the same bits in every batch checked

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.manifest.name

    def require(self, *capabilities: str) -> None:
        """Raises CapabilityMissing unless the model has all of the capabilities."""
        missing = [name for name in capabilities if name not in self.networks]
        if missing:
            raise CapabilityMissing(f"model {self.name} cannot {' and '.join(missing)}", has_network=False)

    def run(self, capability: str, rows: Rows, labels: Labels | None = None) -> tuple[Rows, ...]:
        """One forward pass. `labels` are ignored if the capability takes none. Raises as `Network.run`."""
        if not self.manifest.takes_labels(capability):
            return self.networks[capability].run(rows)
        assert labels is not None, "labels are settled when the request is checked"
        return self.networks[capability].run(rows, labels)

    @property
    def encoder(self) -> str:
        """The capability that maps images to latents."""
        return "embed" if "embed" in self.networks else "encode"

    def encode(self, images: Rows, labels: Labels | None) -> tuple[Rows, Rows | None]:
        """Mean and log-variance of the posterior, `(n, latent)` each. A deterministic code has no log-variance."""
        mean, *log_variance = self.run(self.encoder, images, labels)
        return mean, log_variance[0] if log_variance else None


def load_models(
    directory: Path, runtime: Runtime, max_rows: int, names: Collection[str] = (), threads: int = 1
) -> dict[str, Model]:
    """Load the checkpoints in `directory`, by name. Raises CheckpointError for the first one that is bad.

    max_rows: rows of the largest batch. names: of those to load; all if empty. threads: models to load at a time.
    """
    models = {}
    manifest_files = find_manifests(directory, names)
    with ThreadPoolExecutor(threads, "load", runtime.prepare_thread) as pool:
        for model in pool.map(lambda manifest_file: load_model(manifest_file, runtime, max_rows), manifest_files):
            models[model.name] = model
            log.info("loaded %s, %s, digest %s", model.name, model.provenance.precision, model.provenance.digest)
            for capability in (name for name, identical in model.byte_identical.items() if not identical):
                log.warning("%s of %s is not byte-identical: a row depends on its batch", capability, model.name)
    return models


def load_model(manifest_file: Path, runtime: Runtime, max_rows: int) -> Model:
    """Load one checkpoint: verify digests, check the golden rows, warm up. Raises CheckpointError.

    If an archive is too inaccurate on this device, or its rows depend on their batch, the next precision of the runtime
    is tried. Archives of unused precisions are verified but not opened.
    """
    manifest = read_manifest(manifest_file)
    folder = manifest_file.parent
    contents = {name: read_archive(folder / archive.file, archive) for name, archive in manifest.archives.items()}
    precisions = runtime.precisions(manifest.archives)
    for precision in precisions:
        path = folder / manifest.archives[precision].file
        networks = _load_networks(path, contents[precision], manifest, runtime, max_rows)
        last = precision == precisions[-1]
        try:
            for capability, network in networks.items():
                check_golden(capability, network, manifest.golden[capability], precision)
        except CheckFailed as error:
            if last or not isinstance(error, TooInaccurate):
                raise CheckpointError(path, str(error)) from error
            log.warning("%s: %s; serving float32 instead", path, error)
            continue
        identical = {}
        for name, network in networks.items():
            try:
                identical[name] = warm_up(network, manifest.golden[name], max_rows, sequential=manifest.sequential)
            except (InferenceFailed, OutOfMemory) as error:
                raise CheckpointError(path, f"{name} fails in the warm-up: {error}") from error
        if last or all(identical.values()):
            break
        log.warning("%s: a row depends on its batch; serving float32 instead", path)
    facts = runtime.facts(precision, max_rows)
    return Model(
        manifest=manifest,
        card=read_card(folder / "card.md"),
        pictures=read_pictures(folder),
        history=read_history(folder),
        facts=facts,
        provenance=Provenance(manifest.name, manifest.archives[precision].digest, precision, id_of(facts)),
        networks=networks,
        byte_identical=identical,
    )


def _load_networks(
    path: Path, content: bytes, manifest: Manifest, runtime: Runtime, max_rows: int
) -> dict[str, Network]:
    try:
        return runtime.networks(runtime.load(content), manifest.capabilities, max_rows, freeze=not manifest.sequential)
    except MissingMethod as error:
        raise CheckpointError(path, f"lacks the capability {error} that the manifest names") from error
    except (RuntimeError, MemoryError) as error:
        if isinstance(service_error(error), OutOfMemory):
            raise CheckpointError(path, "cannot be loaded: out of memory") from error
        raise CheckpointError(path, f"is not a TorchScript archive: {str(error).splitlines()[0]}") from error

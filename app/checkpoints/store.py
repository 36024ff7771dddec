"""Find checkpoints and read their files, verified against the manifest. No file is opened as code here."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from app.checkpoints.manifest import Archive, Manifest


class CheckpointError(Exception):
    """A checkpoint cannot be served. The text is one line: the file, then the cause."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"{path}: {' '.join(cause.split())}")


def find_manifests(directory: Path, names: Collection[str] = ()) -> list[Path]:
    """The manifest of each folder in `directory`, sorted by name; only of the folders `names` if there are any.

    Raises CheckpointError if there is none, or a name without a folder.
    """
    try:
        folders = _folders(directory)
        if names:
            folders = _named(directory, folders, names)
        found = [folder / "manifest.json" for folder in folders]
        missing = next((path for path in found if not path.is_file()), None)
    except OSError as error:
        raise CheckpointError(directory, f"cannot be read: {error.strerror}") from error
    if missing is not None:
        raise CheckpointError(missing, "is missing; every folder in the models directory must be a checkpoint")
    if not found:
        raise CheckpointError(directory, "holds no checkpoint; `python -m training train vae` makes one")
    return found


def _folders(directory: Path) -> list[Path]:
    if not directory.is_dir():
        cause = "is not a directory; set DIGITS_MODELS_DIR to the models/ of the repository or of your trainings"
        raise CheckpointError(directory, cause)
    return [entry for entry in sorted(directory.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def _named(directory: Path, folders: list[Path], names: Collection[str]) -> list[Path]:
    there = [folder.name for folder in folders]
    unknown = [name for name in names if name not in there]
    if there and unknown:
        cause = f"holds no model {' or '.join(unknown)}, which DIGITS_MODELS names; it holds {', '.join(there)}"
        raise CheckpointError(directory, cause)
    return [folder for folder in folders if folder.name in names]


def check_files(directory: Path, names: Collection[str] = ()) -> None:
    """Verify manifests and digests of the checkpoints, as `find_manifests` finds them. Raises CheckpointError."""
    for path in find_manifests(directory, names):
        for archive in read_manifest(path).archives.values():
            read_archive(path.parent / archive.file, archive)


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest. Raises CheckpointError."""
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    except ValidationError as error:
        raise CheckpointError(path, first_fault(error)) from error
    if manifest.name != path.parent.name:
        raise CheckpointError(path, f"has the name {manifest.name} in the folder {path.parent.name}")
    return manifest


def first_fault(error: ValidationError) -> str:
    """The first fault that a model of pydantic found, with its location if it has one."""
    fault = error.errors(include_input=False, include_url=False)[0]
    location = ".".join(map(str, fault["loc"]))
    cause = fault["msg"].removeprefix("Value error, ")
    return f"{location}: {cause}" if location else cause


def read_archive(path: Path, archive: Archive) -> bytes:
    """Read an archive once, so that the verified bytes are the loaded bytes. Raises CheckpointError."""
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


def read_card(path: Path) -> str | None:
    """The Markdown of a model card, None if there is no file. Raises CheckpointError."""
    try:
        return path.read_text("utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from error

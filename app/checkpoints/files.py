"""Atomic file writes."""

import os
import tempfile
from pathlib import Path

PARTIAL = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file atomically: after a crash it has either its old content or the new one.

    Raises OSError that names the file and leaves it unchanged, such as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as on a full disk
            error.filename = str(path)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def is_partial(path: Path) -> bool:
    """Whether a file is a temporary one of `write_atomically`, perhaps of a writer that was killed."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partial(directory: Path) -> None:
    """Remove the temporary files of a writer that was killed from a directory."""
    for path in directory.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)

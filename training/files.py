"""Files that are either whole or not there. Knows nothing of what they hold."""

import os
import tempfile
from pathlib import Path

PARTIAL = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, also after a crash.

    Raises OSError that names the file, the old one untouched, when the disk is full or the directory not writable.
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
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say of what
            error.filename = str(path)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_partial(directory: Path) -> None:
    """Remove what a writer that was killed left in the directory, and only that."""
    for path in directory.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)

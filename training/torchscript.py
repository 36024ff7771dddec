"""TorchScript archives, written and read. Families mark what is exported; nothing else in training knows TorchScript.

It is deprecated upstream in favour of `torch.export`; the manifest's `format` is where a successor will show.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from app.checkpoints.manifest import Archive


class ArchiveDamaged(Exception):
    """An archive is not the one that its manifest names."""


def script(module: nn.Module) -> tuple[bytes, nn.Module]:
    """The module as the bytes of a TorchScript archive, and the network those bytes give back.

    Saved to memory first: saving straight to a full disk aborts the process.
    """
    with _deprecated_on_purpose():
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue(), opened(buffer.getvalue())


def opened(content: bytes) -> nn.Module:
    """The network in the bytes of an archive, on the CPU."""
    with _deprecated_on_purpose():
        archive: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    return archive.eval()


@contextmanager
def _deprecated_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=category)
        yield


def load_archive(directory: Path, archive: Archive) -> nn.Module:
    """The network in an archive of a checkpoint, on the CPU. Raises ArchiveDamaged before it opens another file."""
    path = directory / archive.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != archive.digest:
        raise ArchiveDamaged(f"{path} has SHA-256 {digest}, its manifest says {archive.digest}")
    return opened(content)

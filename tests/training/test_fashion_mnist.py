"""Fashion-MNIST: the same checks on other files, with a package of Debian's as the last source."""

import gzip
import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from torchvision import datasets  # type: ignore[import-untyped]

from training import data
from training.data import Dataset, DataUnavailable, load_fashion_mnist, mnist_digest
from training.datasets import load_dataset

PACKAGE = "dataset-fashion-mnist"


@pytest.fixture
def fashion_files(raw_files: dict[str, bytes], no_network: Path, tmp_path: Path, monkeypatch) -> dict[str, bytes]:
    """The four files of a tiny Fashion-MNIST by name; the pinned digests are theirs, and no source has them."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in raw_files.items()}
    monkeypatch.setattr(data, "FASHION_MNIST_SHA256", digests)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", datasets.MNIST.mirrors)
    monkeypatch.setattr(data, "DEBIAN_FOLDER", Path(str(tmp_path / "debian").removeprefix("/")))
    return raw_files


def compressed(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def install(name: str, script: str) -> None:
    """An executable on the PATH that `no_network` left empty; `script` is its Python body."""
    program = Path(os.environ["PATH"]) / name
    program.write_text(f"#!{sys.executable} -S\nimport pathlib, shutil, sys\n{script}\n")
    program.chmod(0o755)


def assert_is_the_tiny_one(loaded: Dataset, dataset: Dataset) -> None:
    assert loaded.name == "Fashion-MNIST"
    assert loaded.box is None, "clothes are not centred as digits are"
    assert loaded.classes[0] == "T-shirt/top"
    assert len(loaded.classes) == 10
    assert torch.equal(loaded.train_images, dataset.train_images)
    assert torch.equal(loaded.test_labels, dataset.test_labels)


def test_files_that_are_there_are_read(tmp_path, fashion_files, dataset):
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in fashion_files.items():
        (raw / name).write_bytes(content)
    assert_is_the_tiny_one(load_dataset("fashion-mnist", tmp_path / "data"), dataset)


def test_the_files_of_the_installed_package_are_taken(tmp_path, fashion_files, dataset):
    compressed(fashion_files, tmp_path / "debian")
    assert_is_the_tiny_one(load_fashion_mnist(tmp_path / "data"), dataset)
    for name, content in fashion_files.items():
        assert (tmp_path / "data" / "FashionMNIST" / "raw" / name).read_bytes() == content


def test_the_package_is_downloaded_where_it_is_not_installed(tmp_path, fashion_files, dataset):
    # Both programs refuse any other arguments, as the real ones would.
    compressed(fashion_files, tmp_path / "packed")
    install("apt-get", f"assert sys.argv[1:] == ['download', {PACKAGE!r}]\npathlib.Path('it.deb').write_text('')")
    install(
        "dpkg-deb",
        "assert sys.argv[1] == '--extract' and sys.argv[2].endswith('it.deb')\n"
        f"shutil.copytree({str(tmp_path / 'packed')!r}, pathlib.Path(sys.argv[3]) / {str(data.DEBIAN_FOLDER)!r})",
    )
    assert_is_the_tiny_one(load_fashion_mnist(tmp_path / "data"), dataset)


def test_a_package_with_other_contents_is_refused(tmp_path, fashion_files):
    compressed(fashion_files | {"t10k-labels-idx1-ubyte": b"other"}, tmp_path / "debian")
    with pytest.raises(DataUnavailable, match=r"Debian's .*t10k-labels-idx1-ubyte has SHA-256"):
        load_fashion_mnist(tmp_path / "data")
    assert not (tmp_path / "data" / "FashionMNIST").exists()


def test_a_failure_of_all_sources_names_each(tmp_path, fashion_files):
    with pytest.raises(DataUnavailable) as caught:
        load_fashion_mnist(tmp_path / "data")
    head, *sources = str(caught.value).splitlines()
    assert head == "Fashion-MNIST could not be had from any source:"
    assert [line.strip().split(":")[0] for line in sources] == [
        f"files in {tmp_path / 'data' / 'FashionMNIST' / 'raw'}",
        "torchvision's mirrors",
        f"Debian's {PACKAGE}",
    ]
    assert sources[-1].endswith("apt-get is not installed")


def test_the_pinned_digests_are_other_files_than_those_of_the_digits():
    assert data.FASHION_MNIST_SHA256.keys() == data.MNIST_SHA256.keys()
    for name, digest in data.FASHION_MNIST_SHA256.items():
        assert re.fullmatch("[0-9a-f]{64}", digest)
        assert digest != data.MNIST_SHA256[name]


def test_digests_of_data_sets_tell_them_apart(tmp_path, fashion_files, monkeypatch):
    compressed(fashion_files, tmp_path / "debian")
    monkeypatch.setattr(data, "MNIST_SHA256", data.MNIST_SHA256 | {"t10k-labels-idx1-ubyte": "0" * 64})
    assert load_fashion_mnist(tmp_path / "data").digest != mnist_digest()


def test_a_data_set_of_no_known_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set is called 'cifar'"):
        load_dataset("cifar", tmp_path)

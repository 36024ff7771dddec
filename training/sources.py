"""Data sets by the names that configs use."""

from pathlib import Path

from training.data import Dataset
from training.folder import load_folder
from training.mnist import load_fashion_mnist, load_mnist

FOLDER = "folder:"


def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Load `mnist`, `fashion-mnist` or `folder:PATH`. Raises DataUnavailable, and ValueError for any other name."""
    if name.startswith(FOLDER):
        return load_folder(Path(name.removeprefix(FOLDER)).expanduser())
    if name == "mnist":
        return load_mnist(data_dir)
    if name == "fashion-mnist":
        return load_fashion_mnist(data_dir)
    raise ValueError(f"there is no dataset {name!r}")

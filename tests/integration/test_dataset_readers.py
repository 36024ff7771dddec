"""Data sets as the libraries `datasets` and `webdataset` read them."""

import io
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from tests.conftest import ROOT
from tests.dataset.conftest import run_command

COUNT = 30
# The libraries leave files and event loops to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Writes a data set of the shipped GAN in a format; its folder."""

    monkeypatch.setenv("DIGITS_MODELS_DIR", str(ROOT / "models"))

    def written(form: str) -> Path:
        out = tmp_path / form
        given = {"model": "cgan", "count": COUNT, "seed": 8, "label": "balanced", "format": form, "out": out}
        assert run_command(monkeypatch, **given, processes=1) == 0
        return out

    return written


@pytest.fixture
def load_dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The function of `datasets`, without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from datasets import load_dataset  # noqa: PLC0415 -- reads the environment

    return lambda folder: load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]


def test_datasets_reads_parquet_with_images_and_class_names(write, load_dataset):
    found = load_dataset(write("parquet"))
    assert found.num_rows == COUNT
    assert found.features["label"].names == list("0123456789")
    assert found["label"] == list(range(10)) * 3
    assert found["index"] == list(range(COUNT))
    assert found[7]["image"].size == (28, 28)


def test_datasets_reads_folders_of_classes(write, load_dataset):
    found = load_dataset(write("folder"))
    assert found.features["label"].names == list("0123456789")
    assert sorted(found["label"]) == sorted(list(range(10)) * 3)


def test_webdataset_and_datasets_read_tar_files(write, load_dataset):
    folder = write("webdataset")
    expected = [(f"{i:02d}", i % 10) for i in range(COUNT)]
    files = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("__key__", "png", "cls"))
    assert [(key, label) for key, _, label in samples] == expected
    found = load_dataset(folder)
    assert [(each["__key__"], each["cls"]) for each in found] == expected
    np.testing.assert_array_equal(np.array(found[3]["png"].convert("L")), np.array(samples[3][1].convert("L")))


def test_the_same_image_is_in_parquet_and_in_a_folder(write, load_dataset):
    folder = write("folder")
    image = load_dataset(write("parquet"))[13]["image"]
    png = Image.open(io.BytesIO((folder / "3" / "13.png").read_bytes()))
    np.testing.assert_array_equal(np.array(image), np.array(png))

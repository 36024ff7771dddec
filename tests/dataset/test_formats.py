"""What the libraries that people use read from a data set of each format."""

import base64
import io
import json
import tarfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet
from torchvision.datasets import MNIST, ImageFolder  # type: ignore[import-untyped]

from app.dataset.arguments import FORMATS
from tests.api.reading import arrays
from tests.conftest import serving
from tests.dataset.conftest import COUNT

Read = tuple[NDArray[np.uint8], list[int]]


@pytest.fixture(scope="module")
def service(models: Path):
    with serving(models_dir=models) as client:
        yield client


@pytest.fixture
def served(service: httpx.Client) -> Read:
    """The same images and labels, from the service."""
    asked = {"model": "cgan", "n": COUNT, "seed": 8, "label": "balanced"}
    answer = arrays(service.post("/generate", json=asked, headers={"Accept": "application/x-npz"}).content)
    return answer["images"], answer["labels"].tolist()


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(png)))


def read_npz(folder: Path) -> Read:
    loaded = [np.load(path) for path in sorted(folder.glob("train-*.npz"))]
    assert np.concatenate([each["index"] for each in loaded]).tolist() == list(range(COUNT))
    return (
        np.concatenate([each["images"] for each in loaded]),
        np.concatenate([each["labels"] for each in loaded]).tolist(),
    )


def read_parquet(folder: Path) -> Read:
    table = parquet.read_table(folder / "data")
    assert table["index"].to_pylist() == list(range(COUNT))
    return np.stack([pixels(each["bytes"]) for each in table["image"].to_pylist()]), table["label"].to_pylist()


def read_webdataset(folder: Path) -> Read:
    images, labels = [], []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None
                if entry.name.endswith(".cls"):
                    labels.append(int(file.read()))
                else:
                    images.append(pixels(file.read()))
    return np.stack(images), labels


def read_folder(folder: Path) -> Read:
    found = ImageFolder(str(folder))
    assert found.classes == list("0123456789")
    paths = sorted(found.samples, key=lambda sample: Path(sample[0]).name)
    return np.stack([pixels(Path(path).read_bytes()) for path, _ in paths]), [label for _, label in paths]


def read_idx(folder: Path) -> Read:
    found = MNIST(str(folder))
    assert found[COUNT - 1][0].size == (28, 28)
    return found.data.numpy(), found.targets.tolist()


READERS = {
    "npz": read_npz,
    "parquet": read_parquet,
    "webdataset": read_webdataset,
    "folder": read_folder,
    "idx": read_idx,
}


@pytest.mark.parametrize("form", FORMATS)
def test_images_and_labels_are_those_of_the_service(command, served, tmp_path, form):
    assert command(tmp_path / "out", format=form, label="balanced") == 0
    images, labels = READERS[form](tmp_path / "out")
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, served[0])
    assert labels == served[1]


def test_a_png_has_the_bytes_of_the_service(command, service, tmp_path):
    assert command(tmp_path / "out", format="folder", label="3,7") == 0
    asked = {"model": "cgan", "n": 1, "seed": 8, "first": 21, "label": ["3", "7"]}
    (image,) = service.post("/generate", json=asked).json()["images"]
    assert (tmp_path / "out" / "7" / "21.png").read_bytes() == base64.b64decode(image["png"])


def test_parquet_files_tell_the_library_datasets_what_they_hold(command, tmp_path):
    assert command(tmp_path / "out", format="parquet", label="balanced") == 0
    schema = parquet.read_schema(tmp_path / "out" / "data" / "train-00000-of-00003.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": list("0123456789"), "_type": "ClassLabel"}


@pytest.mark.parametrize("form", FORMATS)
def test_images_of_a_model_without_labels_have_none(command, tmp_path, form):
    assert command(tmp_path / "out", model="plain", format=form) == 0
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not {name for name in names if "label" in name and name != "unlabelled"}
    if form == "npz":
        assert set(np.load(tmp_path / "out" / "train-00000.npz")) == {"images", "index"}
    if form == "parquet":
        assert parquet.read_table(tmp_path / "out" / "data").column_names == ["image", "index"]
    if form == "folder":
        assert len(list((tmp_path / "out" / "unlabelled").iterdir())) == COUNT


def test_class_names_with_slashes_stay_one_folder(command, tmp_path):
    assert command(tmp_path / "out", model="boots", format="folder", label="balanced") == 0
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"Ankle boot", "T-shirt%2Ftop", "Bag"}

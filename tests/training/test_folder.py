import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.api.reading import png_file
from training.data import DataUnavailable
from training.folder import load_folder, read_row


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it has."""
    content = png_file(np.zeros((1, 1), np.uint8))
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def write_shades(folder: Path, name: str, shades: range) -> None:
    """Images of one shade each."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade in shades:
        (folder / f"{name}{shade}.png").write_bytes(png_file(np.full((28, 28), shade, np.uint8)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty noise images of each of three classes, which differ in brightness."""
    source = np.random.default_rng(0)
    folder = tmp_path / "shades"
    for number, name in enumerate(["dark", "grey", "light"]):
        (folder / name).mkdir(parents=True)
        for image in range(60):
            pixels = source.integers(80 * number, 80 * number + 60, (20 + image, 30), dtype=np.uint8)
            (folder / name / f"{image}.png").write_bytes(png_file(pixels))
    return folder


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_subfolders_are_the_classes_of_their_images(folder):
    dataset = load_folder(folder)
    assert (dataset.name, dataset.classes, dataset.box) == ("shades", ("dark", "grey", "light"), None)
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert (images.shape[1:], images.dtype, labels.dtype) == ((1, 28, 28), torch.uint8, torch.int64)
        assert torch.equal((images.float().mean(dim=(1, 2, 3)) / 80).long(), labels)
    assert set(dataset.train_labels[:20].tolist()) == {0, 1, 2}, "classes are mixed"


def test_about_a_tenth_of_the_images_are_for_testing_and_none_are_in_both_splits(folder):
    dataset = load_folder(folder)
    assert 8 <= len(dataset.test_images) <= 30
    assert len(dataset.train_images) + len(dataset.test_images) == 180
    assert rows(dataset.train_images).isdisjoint(rows(dataset.test_images))


def test_images_keep_their_split_when_others_are_added_and_copies_share_it(folder):
    before = load_folder(folder)
    write_shades(folder / "grey", "new", range(80, 120))
    for path in list((folder / "dark").iterdir()):
        shutil.copy(path, folder / "dark" / f"copy-of-{path.name}")
    after = load_folder(folder)
    assert after.digest != before.digest
    assert rows(before.train_images) <= rows(after.train_images)
    assert rows(before.test_images) <= rows(after.test_images)
    assert rows(after.train_images).isdisjoint(rows(after.test_images))


def test_the_dataset_depends_on_contents_and_labels_and_not_on_paths(folder, tmp_path):
    before = load_folder(folder)
    moved = tmp_path / "elsewhere" / "shades"
    shutil.copytree(folder, moved)
    for number, path in enumerate(sorted((moved / "light").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{number}.png"))
    after = load_folder(moved)
    assert after.digest == before.digest
    assert torch.equal(after.train_images, before.train_images)
    assert torch.equal(after.test_labels, before.test_labels)
    next((moved / "dark").iterdir()).rename(moved / "light" / "moved.png")
    assert load_folder(moved).digest != before.digest


def test_classes_are_sorted_by_the_numbers_in_their_names(tmp_path):
    for name in ("10", "9", "class 2", "class 11"):
        write_shades(tmp_path / name, "", range(30))
    assert load_folder(tmp_path).classes == ("9", "10", "class 2", "class 11")


def test_hidden_files_and_files_other_than_images_are_skipped(folder):
    before = load_folder(folder)
    (folder / "README.md").write_text("not a class")
    (folder / ".git").mkdir()
    (folder / "dark" / "notes.txt").write_text("not an image")
    (folder / "dark" / ".hidden.png").write_text("not an image")
    (folder / "dark" / "more").mkdir()
    assert load_folder(folder).digest == before.digest


def remove_classes(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (shutil.rmtree, "shades"),
        (remove_classes, "shades"),
        (lambda folder: (folder / "empty").mkdir(), "empty"),
        (lambda folder: (folder / "dark" / "bad.png").write_bytes(b"no"), "bad.png"),
        (lambda folder: Image.new("L", (28, 28)).save(folder / "dark" / "drawing.bmp"), "drawing.bmp"),
        (lambda folder: (folder / "dark" / "large.png").write_bytes(png_of_size(13_000, 13_000)), "13000x13000"),
        (lambda folder: os.truncate(next((folder / "dark").iterdir()), 2**27), r"134,217,728 bytes"),
        (lambda folder: os.mkdir(os.fsencode(folder) + b"/caf\xe9"), "UTF-8"),
        (
            lambda folder: (folder / "dark" / "cut.png").write_bytes(png_file(np.eye(99, dtype=np.uint8))[:-30]),
            "cut.png",
        ),
    ],
    ids=[
        "missing",
        "no classes",
        "no images",
        "no image file",
        "another format",
        "too many pixels",
        "too many bytes",
        "a name that is not UTF-8",
        "truncated image file",
    ],
)
def test_an_unusable_folder_is_refused_with_its_path(folder, damage, name):
    damage(folder)
    with pytest.raises(DataUnavailable, match=name) as caught:
        load_folder(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_an_image_of_the_right_size_keeps_its_pixels_and_transparent_ones_become_black():
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    assert np.array_equal(read_row(png_file(pixels)), pixels)
    alpha = np.full_like(pixels, 255)
    alpha[:14] = 0
    assert np.array_equal(read_row(png_file(np.dstack([pixels, alpha]))), np.where(alpha, pixels, 0))

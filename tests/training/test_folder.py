"""Folders of labelled images: what is read, how it is split, and what is refused."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import Dataset, DataUnavailable
from training.folder import load_folder, read_row


def png(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty images of each of three classes: noise around the brightness that is the class's."""
    source = np.random.default_rng(0)
    folder = tmp_path / "shades"
    for number, name in enumerate(["dark", "grey", "light"]):
        (folder / name).mkdir(parents=True)
        for image in range(60):
            pixels = source.integers(80 * number, 80 * number + 60, (20 + image, 30), dtype=np.uint8)
            (folder / name / f"{image}.png").write_bytes(png(pixels))
    return folder


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def no_classes(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path)


def test_classes_are_the_folders_and_labels_those_of_the_images(folder):
    dataset = load_folder(folder)
    assert dataset.name == "shades"
    assert dataset.classes == ("dark", "grey", "light")
    assert dataset.box is None, "the service only resizes uploads"
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert (images.shape[1:], images.dtype, labels.dtype) == ((1, 28, 28), torch.uint8, torch.int64)
        brightness = images.float().mean(dim=(1, 2, 3))
        assert torch.equal((brightness / 80).long(), labels)
    assert len(dataset.train_images) + len(dataset.test_images) == 180


def test_about_a_tenth_is_for_testing_and_no_image_is_on_both_sides(folder):
    dataset = load_folder(folder)
    assert 8 <= len(dataset.test_images) <= 30
    assert rows(dataset.train_images).isdisjoint(rows(dataset.test_images))


def test_the_first_images_are_of_all_classes(folder):
    assert set(load_folder(folder).train_labels[:20].tolist()) == {0, 1, 2}


def test_images_keep_their_side_when_others_come_and_copies_go_with_them(folder):
    before = load_folder(folder)
    for number in range(40):
        pixels = np.full((28, 28), 80 + number, np.uint8)
        (folder / "grey" / f"new-{number}.png").write_bytes(png(pixels))
    for path in list((folder / "dark").iterdir()):
        shutil.copy(path, folder / "dark" / f"copy-of-{path.name}")
    after = load_folder(folder)
    assert after.digest != before.digest
    assert rows(before.train_images) <= rows(after.train_images)
    assert rows(before.test_images) <= rows(after.test_images)
    assert rows(after.train_images).isdisjoint(rows(after.test_images))


def test_the_data_is_the_same_wherever_it_lies_and_whatever_the_files_are_called(folder, tmp_path):
    before = load_folder(folder)
    moved = tmp_path / "elsewhere" / "shades"
    shutil.copytree(folder, moved)
    for number, path in enumerate(sorted((moved / "light").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{number}.png"))
    after = load_folder(moved)
    assert after.digest == before.digest
    assert torch.equal(after.train_images, before.train_images)
    assert torch.equal(after.test_labels, before.test_labels)


def test_another_label_is_other_data(folder):
    before = load_folder(folder)
    path = next((folder / "dark").iterdir())
    path.rename(folder / "light" / "moved.png")
    assert load_folder(folder).digest != before.digest


def test_numbers_in_names_of_classes_count(tmp_path):
    for name in ("10", "9", "class 2", "class 11"):
        (tmp_path / name).mkdir()
        for shade in range(30):
            (tmp_path / name / f"{shade}.png").write_bytes(png(np.full((2, 2), shade, np.uint8)))
    assert load_folder(tmp_path).classes == ("9", "10", "class 2", "class 11")


def test_other_files_hidden_ones_and_hidden_folders_are_left_out(folder):
    before = load_folder(folder)
    (folder / "README.md").write_text("not a class")
    (folder / ".git").mkdir()
    (folder / "dark" / "notes.txt").write_text("not an image")
    (folder / "dark" / ".hidden.png").write_text("not an image")
    (folder / "dark" / "more").mkdir()
    assert load_folder(folder).digest == before.digest


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (shutil.rmtree, "is not a folder"),
        (no_classes, "holds no folders"),
        (lambda folder: (folder / "empty").mkdir(), "empty holds no images to learn from"),
        (lambda folder: (folder / "dark" / "bad.png").write_bytes(b"no"), "bad.png cannot be read as an image"),
        (
            lambda folder: (folder / "dark" / "cut.png").write_bytes(png(np.eye(99, dtype=np.uint8))[:-30]),
            "cut.png cannot be read as an image",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_named(folder, harm, words):
    harm(folder)
    with pytest.raises(DataUnavailable, match=words) as caught:
        load_folder(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_there_is_a_test_image_however_few_there_are(tmp_path):
    (tmp_path / "one").mkdir()
    for shade in range(2):
        (tmp_path / "one" / f"{shade}.png").write_bytes(png(np.full((28, 28), shade, np.uint8)))
    dataset = load_folder(tmp_path)
    assert (len(dataset.train_images), len(dataset.test_images)) == (1, 1)


def test_an_image_of_the_models_size_keeps_its_pixels():
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    assert np.array_equal(read_row(png(pixels)), pixels)


def test_what_is_transparent_is_black():
    pixels = np.full((28, 28, 2), 200, np.uint8)
    pixels[:14, :, 1] = 0
    pixels[14:, :, 1] = 255
    row = read_row(png(pixels))
    assert (row[:14] == 0).all()
    assert (row[14:] == 200).all()


def test_a_dataset_of_classes_that_nobody_could_ask_for_is_refused(dataset):
    with pytest.raises(DataUnavailable):
        Dataset(
            "twice",
            "0" * 64,
            dataset.train_images,
            dataset.train_labels,
            dataset.test_images,
            dataset.test_labels,
            ("a", "a"),
        )

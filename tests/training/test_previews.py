"""Grids of images, decoded again."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from app.checkpoints.manifest import ImageForm
from tests.training.conftest import manifest_of
from training.archive import open_archive
from training.evaluation.resizing import area_averages
from training.previews import example_grid, neighbour_grid, preview, sample_grid, traversal_grid

UNLABELLED = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=False, priors=("normal",))
CONDITIONAL = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=True, priors=("normal",))


class Echo(nn.Module):
    """Images of one grey value, that of the label or of the first latent."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        grey = torch.sigmoid(latents[:, 0] * self.weight) if labels is None else labels / 255
        return grey[:, None, None, None].expand(-1, 1, 28, 28)

    decode = generate

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None].logit().expand(-1, 3)

    def upscale(self, images: Tensor) -> Tensor:
        return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def cells(png: bytes, columns: int, scale: int = 2) -> np.ndarray:
    """The pixels of a grid of enlarged 28x28 images as (rows, columns, 28, 28)."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        pixels = np.asarray(image)[::scale, ::scale]
    return pixels.reshape(-1, 28, columns, 28).swapaxes(1, 2)


@pytest.mark.parametrize(("classes", "columns"), [(2, 2), (12, 10)])
def test_a_sample_grid_of_a_conditional_model_has_a_column_per_class(classes, columns):
    grid = cells(sample_grid(Echo(), CONDITIONAL, classes, seed=1), columns)
    assert grid[:, :, 0, 0].flatten().tolist() == [number % classes for number in range(8 * columns)]


def test_each_image_is_above_the_negative_of_its_nearest_training_image(dataset):
    train = dataset.train_images
    images = train[[7, 3, 100, 50, 20, 9]].clone()
    images[:, 0, 0, 0] = 40  # near their originals, not equal
    grid = cells(neighbour_grid(images, train, columns=3), 3)
    assert grid.shape[:2] == (4, 3)
    for row, numbers in enumerate([(7, 3, 100), (50, 20, 9)]):
        for column, number in enumerate(numbers):
            assert (grid[2 * row, column] == images[3 * row + column, 0].numpy()).all()
            assert (grid[2 * row + 1, column] == 255 - train[number, 0].numpy()).all()


def test_a_traversal_of_an_autoencoder_varies_one_dimension_per_row(dataset, vae_run):
    manifest = manifest_of(vae_run)
    archive = open_archive((vae_run.models_dir / "vae" / manifest.archives["float32"].file).read_bytes())
    grid = cells(traversal_grid(archive, manifest, dataset, seed=0), 10)
    assert grid.shape[:2] == (8, 10)
    ends = [(row[0].astype(int) - row[-1].astype(int)) for row in grid]
    assert all((end != 0).any() for end in ends)
    assert len({end.tobytes() for end in ends}) == 8


def test_a_traversal_of_a_generator_goes_from_one_latent_to_another_with_one_label_per_row(dataset, gan_run):
    plain = manifest_of(gan_run).model_copy(update={"latent_dim": 3})
    grid = cells(traversal_grid(Echo(), plain, dataset, seed=0), 10)[:, :, 0, 0].astype(int)
    assert grid.shape == (8, 10)
    assert (np.abs(np.diff(grid, axis=1)) < 60).all()
    labelled = plain.model_copy(update={"conditional": True})
    grid = cells(traversal_grid(Echo(), labelled, dataset, seed=0), 10)[:, :, 0, 0]
    assert grid.tolist() == [[label] * 10 for label in range(8)]


def test_a_traversal_of_a_deterministic_autoencoder_reaches_as_far_as_its_codes(dataset, gan_run):
    update = {"latent_dim": 3, "capabilities": ("generate", "decode", "embed")}
    grid = cells(traversal_grid(Echo(), manifest_of(gan_run).model_copy(update=update), dataset, seed=0), 10)
    codes = Echo().embed(dataset.test_images / 255)[:, 0]
    ends = torch.sigmoid(codes.mean() + torch.tensor([-3, 3]) * codes.std()) * 255
    shown = grid[:3, [0, -1], 0, 0].astype(int).tolist()  # the only dimension of an image is the first
    assert any(np.abs(np.array(row) - ends.numpy()).max() <= 1 for row in shown)


def test_a_preview_shows_samples_else_enlargements_else_reconstructions_else_nothing(dataset, gan_run):
    form = manifest_of(gan_run).model_copy(update={"latent_dim": 3, "conditional": False})
    shown = preview(Echo(), ["generate", "decode", "embed"], UNLABELLED, dataset, 1)
    assert shown == ("samples.png", sample_grid(Echo(), UNLABELLED, 10, seed=1))
    name, png = preview(Echo(), ["decode", "embed"], form, dataset, 1) or ("", b"")
    assert name == "reconstructions.png"
    above, below = cells(png, 10)
    assert (above == dataset.test_images[:10, 0].numpy()).all()
    assert np.abs(below.mean(axis=(1, 2)) - above.mean(axis=(1, 2))).max() < 1
    for capabilities in (["decode"], ["embed"], ["discriminate"]):
        assert preview(Echo(), capabilities, form, dataset, 1) is None


def test_a_preview_of_an_upscaler_shows_input_interpolation_result_and_original(dataset, gan_run):
    small = ImageForm(shape=(1, 14, 14), normalization=None)
    form = manifest_of(gan_run).model_copy(update={"input_image": small})
    name, png = preview(Echo(), ["upscale"], form, dataset, 1) or ("", b"")
    assert name == "upscaled.png"
    pixels, interpolated, ours, originals = cells(png, 10)
    inputs = area_averages(dataset.test_images[:10], (1, 14, 14))[:, 0].numpy()
    assert (pixels == inputs.repeat(2, axis=1).repeat(2, axis=2)).all()
    assert (ours == pixels).all()
    assert (interpolated != pixels).any()
    assert (originals == dataset.test_images[:10, 0].numpy()).all()


def test_a_sheet_of_test_images_has_each_class_in_turn(dataset):
    sheet = cells(example_grid(dataset, (1, 28, 28)), 10, scale=1).reshape(-1, 28, 28)
    assert len(sheet) == min(100, len(dataset.test_images) // 10 * 10)
    own = {label: dataset.test_images[dataset.test_labels == label, 0].numpy() for label in range(10)}
    balanced = 10 * min(len(images) for images in own.values())
    for i, image in enumerate(sheet[:balanced]):
        assert (image == own[i % 10][i // 10]).all()


def test_a_sheet_of_few_test_images_of_few_classes_is_smaller(dataset):
    few = replace(dataset, test_images=dataset.test_images[:3], test_labels=torch.tensor([4, 4, 2]))
    sheet = cells(example_grid(few, (1, 28, 28)), 3, scale=1)
    assert (sheet[0] == dataset.test_images[[2, 0, 1], 0].numpy()).all()
    with Image.open(io.BytesIO(example_grid(few, (1, 7, 7)))) as image:
        assert image.size == (21, 7)

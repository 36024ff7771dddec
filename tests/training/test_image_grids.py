"""Grids, opened again as a reader would."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from app.checkpoints.manifest import Manifest
from training.pictures import grid_png, neighbour_grid, sample_grid, traversal_grid
from training.torchscript import load_archive

UNLABELLED = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=False, priors=("normal",))
CONDITIONAL = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=True, priors=("normal",))


class Echo(nn.Module):
    """Paints each image evenly in a grey taken from its latent, or from its label where it is given one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        grey = torch.sigmoid(latents[:, 0] * self.weight) if labels is None else labels / 255
        return grey[:, None, None, None].expand(-1, 1, 28, 28)


def cells(png: bytes, columns: int) -> np.ndarray:
    """The pixels of a grid of 28 x 28 images, twice enlarged, as (rows, columns, 28, 28)."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        pixels = np.asarray(image)[::2, ::2]
    return pixels.reshape(-1, 28, columns, 28).swapaxes(1, 2)


def test_a_grid_shows_images_row_by_row_each_pixel_twice_as_large():
    images = torch.linspace(0, 255, 6 * 4 * 3).to(torch.uint8).view(6, 1, 4, 3)
    with Image.open(io.BytesIO(grid_png(images, columns=3))) as image:
        assert image.format == "PNG"
        assert image.mode == "L"
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 4 * 2, 3 * 3 * 2)
    for number in range(6):
        for y in range(4):
            for x in range(3):
                top, left = 2 * (number // 3 * 4 + y), 2 * (number % 3 * 3 + x)
                block = pixels[top : top + 2, left : left + 2]
                assert (block == int(images[number, 0, y, x])).all()


def test_sample_grids_of_one_seed_show_the_same_noise_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    first = sample_grid(Echo(), UNLABELLED, 10, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_grid(Echo(), UNLABELLED, 10, seed=1) == first
    assert sample_grid(Echo(), UNLABELLED, 10, seed=2) != first
    assert cells(first, 8).shape[:2] == (8, 8)
    assert len(np.unique(cells(first, 8)[:, :, 0, 0])) > 30, "sixty-four latents, not one"


@pytest.mark.parametrize(("classes", "columns"), [(2, 2), (10, 10), (12, 10)])
def test_a_sample_grid_of_a_conditional_model_has_a_column_a_class(classes, columns):
    grid = cells(sample_grid(Echo(), CONDITIONAL, classes, seed=1), columns)
    assert grid[:, :, 0, 0].flatten().tolist() == [number % classes for number in range(8 * columns)]


def test_each_image_stands_above_its_nearest_training_image_in_negative(dataset):
    train = dataset.train_images
    images = train[[7, 3, 100, 50, 20, 9]].clone()
    images[:, 0, 0, 0] = 40  # near their originals, not equal to them
    grid = cells(neighbour_grid(images, train, columns=3), 3)
    assert grid.shape[:2] == (4, 3)
    for row, numbers in enumerate([(7, 3, 100), (50, 20, 9)]):
        for column, number in enumerate(numbers):
            assert (grid[2 * row, column] == images[3 * row + column, 0].numpy()).all()
            assert (grid[2 * row + 1, column] == 255 - train[number, 0].numpy()).all()


def test_images_that_fill_no_row_are_left_out(dataset):
    assert cells(neighbour_grid(dataset.test_images[:5], dataset.train_images, columns=3), 3).shape[0] == 2


def test_a_traversal_of_an_autoencoder_moves_one_number_a_row_around_one_code(dataset, vae_run):
    manifest = Manifest.model_validate_json((vae_run.models_dir / "vae" / "manifest.json").read_bytes())
    archive = load_archive(vae_run.models_dir / "vae", manifest.archives["float32"])
    grid = cells(traversal_grid(archive, manifest, dataset, seed=0), 10)
    assert grid.shape[:2] == (8, 10)
    ends = [(row[0].astype(int) - row[-1].astype(int)) for row in grid]
    assert all((end != 0).any() for end in ends), "every row changes the image"
    assert len({end.tobytes() for end in ends}) == 8, "every row in its own way"


def test_a_traversal_of_a_generator_walks_between_two_latents_with_one_label_a_row(dataset, gan_run):
    manifest = Manifest.model_validate_json((gan_run.models_dir / "gan" / "manifest.json").read_bytes())
    plain = manifest.model_copy(update={"latent_dim": 3})
    grid = cells(traversal_grid(Echo(), plain, dataset, seed=0), 10)[:, :, 0, 0].astype(int)
    assert grid.shape == (8, 10)
    assert (np.abs(np.diff(grid, axis=1)) < 60).all()
    labelled = plain.model_copy(update={"conditional": True})
    grid = cells(traversal_grid(Echo(), labelled, dataset, seed=0), 10)[:, :, 0, 0]
    assert grid.tolist() == [[label] * 10 for label in range(8)]

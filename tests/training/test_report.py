"""Curves, tables and grids, opened again as a reader would."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from app.checkpoints.manifest import Manifest
from training.report import card, csv_bytes, curves_png, grid_png, sample_grid

HISTORY = [
    {"epoch": 1, "discriminator": 1.25, "generator": 0.1},
    {"epoch": 2, "discriminator": 1.0 / 3, "generator": 7.5},
]


UNLABELLED = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=False, priors=("normal",))
CONDITIONAL = SimpleNamespace(latent_dim=3, noise_dim=3, conditional=True, priors=("normal",))


class Echo(torch.nn.Module):
    """Paints each image evenly in a colour taken from its latent."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def generate(self, latents):
        return torch.sigmoid(latents[:, :1, None, None] * self.weight).expand(-1, 1, 28, 28)


class Labelled(torch.nn.Module):
    """Paints each image evenly in the grey of its label."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def generate(self, latents, labels):
        return (labels / 255)[:, None, None, None].expand(-1, 1, 28, 28)


def test_csv_has_a_header_and_one_line_an_epoch_with_every_digit_kept():
    rows = list(csv.DictReader(io.StringIO(csv_bytes(HISTORY).decode())))
    assert csv_bytes(HISTORY).decode().splitlines()[0] == "epoch,discriminator,generator"
    assert [{name: float(value) for name, value in row.items()} for row in rows] == HISTORY


@pytest.mark.parametrize("losses", [1, 2])
def test_curves_are_a_png_with_one_plot_a_loss(losses):
    history = [dict(list(row.items())[: losses + 1]) for row in HISTORY]
    with Image.open(io.BytesIO(curves_png(history))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (500 * losses, 350)


def test_curves_follow_the_losses():
    flat = [row | {"generator": 7.5} for row in HISTORY]
    assert curves_png(HISTORY) == curves_png(HISTORY)
    assert curves_png(HISTORY) != curves_png(flat)


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
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == (8 * 28 * 2, 8 * 28 * 2)
        assert len(set(np.asarray(image)[::56, ::56].flatten().tolist())) > 30, "sixty-four latents, not one"


@pytest.mark.parametrize(("classes", "columns"), [(2, 2), (10, 10), (12, 10)])
def test_a_sample_grid_of_a_conditional_model_has_a_column_a_class(classes, columns):
    with Image.open(io.BytesIO(sample_grid(Labelled(), CONDITIONAL, classes, seed=1))) as image:
        assert image.size == (columns * 28 * 2, 8 * 28 * 2)
        cells = np.asarray(image)[::56, ::56]
    assert cells.flatten().tolist() == [number % classes for number in range(8 * columns)]


def test_the_card_says_what_the_manifest_says(vae_run):
    manifest = Manifest.model_validate_json((vae_run.models_dir / "vae" / "manifest.json").read_bytes())
    text = card(manifest)
    assert text == (vae_run.models_dir / "vae" / "card.md").read_text()
    assert text.startswith("# vae\n")
    for name, figure in manifest.quality.figures.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {name.replace('_', ' ')} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [f"{figure.value:.3f}", f"{figure.floor:.3f}", f"{figure.ceiling:.3f}", figure.unit]
    for part in ("encoder 424,480", "decoder 108,993", "192 images", "3 epochs, seed 5", "beta 1.0"):
        assert part in text
    for archive in manifest.archives.values():
        assert archive.digest in text
    for part in (manifest.dataset.digest, manifest.quality.protocol, "(samples.png)"):
        assert part in text

"""Pictures of what a model makes, as PNG. Knows no run and no figure."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from app.checkpoints.manifest import Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.autoencoding import autoencoder_of
from training.evaluation.memorisation import nearest
from training.sampling import PLAIN, Controls, Form, balanced, draw_images, draw_latents, generate, gives_labels

ROWS, COLUMNS = 8, 8
# Of models whose images have labels; classes beyond these take their turn in the next row.
CLASS_COLUMNS = 10
STEPS = 10
REACH = 3.0  # standard deviations of the prior


def sample_grid(network: nn.Module, form: Form, classes: int, seed: int, controls: Controls = PLAIN) -> bytes:
    """Images of fixed noise as a grid, two screen pixels a pixel: a column a class where they have labels."""
    columns = min(classes, CLASS_COLUMNS) if gives_labels(form, controls) else COLUMNS
    labels = balanced(ROWS * columns, classes)
    return grid_png(draw_images(network, form, labels, seed, controls), columns)


def neighbour_grid(images: Tensor, train_images: Tensor, columns: int = CLASS_COLUMNS) -> bytes:
    """Each image above its nearest training image in negative: uint8 `(B, 1, H, W)` and `(M, 1, H, W)`.

    What does not fill a row of `columns` is left out.
    """
    count = len(images) // columns * columns
    _, places = nearest(images[:count], train_images)
    pairs = torch.stack([images[:count], 255 - train_images[places]], dim=1)  # (B, 2, 1, H, W)
    rows = pairs.view(-1, columns, *pairs.shape[1:]).transpose(1, 2)  # (B / columns, 2, columns, 1, H, W)
    return grid_png(rows.flatten(0, 2), columns)


def traversal_grid(archive: nn.Module, manifest: Manifest, dataset: Dataset, seed: int) -> bytes:
    """A row a walk through the latents.

    Of a model that encodes: around the code of the first test image, each row moves one of the latent numbers that
    vary most over the test images from -3 to 3. Of others: from one drawn latent to another along a great circle.
    """
    if "encode" in manifest.capabilities:
        latents, labels = _moved_codes(archive, manifest, dataset)
    else:
        latents, labels = _walks(archive, manifest, len(dataset.classes), seed)
    return grid_png(generate(archive, manifest, latents, labels), STEPS)


def grid_png(images: Tensor, columns: int, scale: int = 2) -> bytes:
    """uint8 images `(B, 1, H, W)`, B a multiple of `columns`, as one picture, row by row."""
    count, _, height, width = images.shape
    cells = images.numpy().reshape(count // columns, columns, height, width).swapaxes(1, 2)
    grid = cells.reshape(count // columns * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(grid, np.ones((scale, scale), np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


@torch.no_grad()
def _moved_codes(archive: nn.Module, manifest: Manifest, dataset: Dataset) -> tuple[Tensor, Tensor]:
    labels = dataset.test_labels[:1000]
    codes, _ = autoencoder_of(archive, manifest).encode(to_unit_range(dataset.test_images[:1000]), labels)
    numbers = codes.var(dim=0).argsort(descending=True)[:ROWS]
    latents = codes[:1].repeat(len(numbers), STEPS, 1)  # (rows, steps, latent)
    for row, number in enumerate(numbers):
        latents[row, :, number] = torch.linspace(-REACH, REACH, STEPS)
    return latents.flatten(0, 1), labels[:1].expand(len(numbers) * STEPS)


def _walks(archive: nn.Module, manifest: Manifest, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = balanced(ROWS, classes)
    latents = draw_latents(archive, manifest, labels.repeat(2), seed, Controls(prior="normal"))
    start, end = latents[:ROWS, None], latents[ROWS:, None]  # (rows, 1, latent)
    # Sine and cosine weights: each latent of the way is normal as its ends are.
    angles = torch.linspace(0, math.pi / 2, STEPS)[None, :, None]
    return (start * angles.cos() + end * angles.sin()).flatten(0, 1), labels.repeat_interleave(STEPS)

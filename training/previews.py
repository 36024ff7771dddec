"""Pictures of a model for its card and TensorBoard: PNG grids of samples, neighbours and traversals.

The service makes its own grids, in `app.images.encode`.
"""

import io
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from app.checkpoints.manifest import Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.autoencoding import codes_of
from training.evaluation.memorisation import nearest
from training.evaluation.resizing import area_averages, bicubic
from training.generation import (
    PLAIN,
    Controls,
    Form,
    balanced_labels,
    draw_images,
    draw_latents,
    generate,
    gives_labels,
    quantised,
    with_labels,
)

ROWS, COLUMNS = 8, 8
CLASS_COLUMNS = 10  # at most, of models whose images have labels
EXAMPLES = 10  # rows and columns of test images
STEPS = 10  # of a traversal
REACH = 3.0  # of a traversal, in standard deviations of the prior, or of the codes of a deterministic encoder


def preview(
    network: nn.Module,
    capabilities: Collection[str],
    form: Form,
    dataset: Dataset,
    seed: int,
    controls: Controls = PLAIN,
) -> tuple[str, bytes] | None:
    """The file name and the content of a grid of what a model makes: samples, enlargements or reconstructions.

    A model that makes no images has none.
    """
    if "generate" in capabilities:
        return "samples.png", sample_grid(network, form, len(dataset.classes), seed, controls)
    if "upscale" in capabilities:
        return "upscaled.png", upscaling_grid(network, form, dataset)
    if "decode" in capabilities and {"encode", "embed"} & set(capabilities):
        return "reconstructions.png", reconstruction_grid(network, form, dataset)
    return None


def sample_grid(network: nn.Module, form: Form, classes: int, seed: int, controls: Controls = PLAIN) -> bytes:
    """Images of fixed noise, with one column per class where images have labels."""
    columns = min(classes, CLASS_COLUMNS) if gives_labels(form, controls) else COLUMNS
    labels = balanced_labels(ROWS * columns, classes)
    return grid_png(draw_images(network, form, labels, seed, controls), columns)


@torch.no_grad()
def reconstruction_grid(network: Any, form: Form, dataset: Dataset) -> bytes:
    """Test images, each above its reconstruction from its code or its posterior mean."""
    device = next(network.parameters()).device
    images = area_averages(dataset.test_images[:CLASS_COLUMNS], form.input_shape)
    labels = dataset.test_labels[:CLASS_COLUMNS].to(device)
    encode = network.encode if hasattr(network, "encode") else network.embed
    codes = encode(*with_labels(form, to_unit_range(images.to(device)), labels))
    decoded = network.decode(*with_labels(form, codes[0] if isinstance(codes, tuple) else codes, labels))
    return grid_png(torch.cat([enlarged(images, decoded.shape[-1]), quantised(decoded).cpu()]), len(images))


@torch.no_grad()
def upscaling_grid(network: Any, form: Form, dataset: Dataset) -> bytes:
    """Rows of small test images, their bicubic interpolation, their enlargement by the model, and the originals."""
    device = next(network.parameters()).device
    originals = dataset.test_images[:CLASS_COLUMNS]
    small = area_averages(originals, form.input_shape)
    ours = quantised(network.upscale(to_unit_range(small.to(device)))).cpu()
    shape = (1, ours.shape[2], ours.shape[3])
    rows = [enlarged(small, shape[2]), bicubic(small, shape), ours, area_averages(originals, shape)]
    return grid_png(torch.cat(rows), len(originals))


def enlarged(images: Tensor, width: int) -> Tensor:
    """Square uint8 images `(N, 1, H, W)` at another width, by nearest-neighbour interpolation."""
    return functional.interpolate(images.float(), [width, width], mode="nearest").to(torch.uint8)


def example_grid(dataset: Dataset, shape: tuple[int, int, int]) -> bytes:
    """Test images of each class in turn, as area averages of a shape, not enlarged: 10 x 10, or full rows of fewer."""
    labels = dataset.test_labels
    ranks = torch.zeros_like(labels)  # within the class
    for label in set(labels.tolist()):
        own = labels == label
        ranks[own] = torch.arange(int(own.sum()))
    columns = min(EXAMPLES, len(labels))
    count = min(EXAMPLES * columns, len(labels) // columns * columns)
    order = (ranks * (int(labels.max()) + 1) + labels).argsort()[:count]
    return grid_png(area_averages(dataset.test_images[order], shape), columns, scale=1)


def neighbour_grid(images: Tensor, train_images: Tensor, columns: int = CLASS_COLUMNS) -> bytes:
    """Each image above the negative of its nearest training image: uint8 `(B, 1, H, W)` and `(M, 1, H, W)`.

    Only full rows of `columns` images are shown.
    """
    count = len(images) // columns * columns
    _, indices = nearest(images[:count], train_images)
    pairs = torch.stack([images[:count], 255 - train_images[indices]], dim=1)  # (B, 2, 1, H, W)
    rows = pairs.view(-1, columns, *pairs.shape[1:]).transpose(1, 2)  # (B / columns, 2, columns, 1, H, W)
    return grid_png(rows.flatten(0, 2), columns)


def traversal_grid(archive: nn.Module, manifest: Manifest, dataset: Dataset, seed: int) -> bytes:
    """One traversal of the latent space per row.

    With an encoder, each row varies one latent dimension of the code of the first test image from -3 to 3, or by three
    standard deviations of the codes where the encoder is deterministic. The dimensions are those of the largest
    variance over the test images. Without an encoder, each row goes from one random latent to another on a great
    circle.
    """
    if {"encode", "embed"} & set(manifest.capabilities):
        latents, labels = _varied_codes(archive, manifest, dataset)
    else:
        latents, labels = _great_circles(archive, manifest, len(dataset.classes), seed)
    return grid_png(generate(archive, manifest, latents, labels), STEPS)


def grid_png(images: Tensor, columns: int, scale: int = 2) -> bytes:
    """uint8 images `(B, 1, H, W)`, B a multiple of `columns`, as one image, row by row."""
    count, _, height, width = images.shape
    cells = images.numpy().reshape(count // columns, columns, height, width).swapaxes(1, 2)
    grid = cells.reshape(count // columns * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(grid, np.ones((scale, scale), np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


@torch.no_grad()
def _varied_codes(archive: nn.Module, manifest: Manifest, dataset: Dataset) -> tuple[Tensor, Tensor]:
    labels = dataset.test_labels[:1000]
    images = area_averages(dataset.test_images[:1000], manifest.input_shape)
    codes = codes_of(archive, manifest, to_unit_range(images), labels)
    means, deviations = torch.zeros_like(codes[0]), torch.ones_like(codes[0])
    if "encode" not in manifest.capabilities:  # deterministic codes may have any mean and variance
        means, deviations = codes.mean(dim=0), codes.std(dim=0)
    dimensions = codes.var(dim=0).argsort(descending=True)[:ROWS]
    latents = codes[:1].repeat(len(dimensions), STEPS, 1)  # (rows, steps, latent)
    for row, dimension in enumerate(dimensions):
        latents[row, :, dimension] = means[dimension] + deviations[dimension] * torch.linspace(-REACH, REACH, STEPS)
    return latents.flatten(0, 1), labels[:1].expand(len(dimensions) * STEPS)


def _great_circles(archive: nn.Module, manifest: Manifest, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = balanced_labels(ROWS, classes)
    latents = draw_latents(archive, manifest, labels.repeat(2), seed, Controls(prior=manifest.priors[-1]))
    start, end = latents[:ROWS, None], latents[ROWS:, None]  # (rows, 1, latent)
    # With sine and cosine weights every latent is standard normal like the ends.
    angles = torch.linspace(0, math.pi / 2, STEPS)[None, :, None]
    return (start * angles.cos() + end * angles.sin()).flatten(0, 1), labels.repeat_interleave(STEPS)

"""Figures of archives that give the likelihood of an image."""

import math
from typing import Any

import torch
from torch import Tensor

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, batches, to_unit_range
from training.evaluation.binarisation import fixed_binarisation
from training.evaluation.elbo import cross_entropy
from training.evaluation.figures import given_text, over_images
from training.evaluation.resizing import area_averages
from training.generation import with_labels

BATCH = 500
GREYS = 256
COUNT_BATCH = 10_000


@torch.no_grad()
def log_likelihood_figures(archive: Any, manifest: Manifest, dataset: Dataset) -> dict[str, Figure]:
    """The likelihood of all test images, or the bound on it that the archive gives.

    A model of binarised images is measured in nats on binarised images, any other one in bits per dimension.
    """
    shape = manifest.input_shape
    greys, train = area_averages(dataset.test_images, shape), area_averages(dataset.train_images, shape)
    binary, given = bool(manifest.training.config.get("binarised")), given_text(manifest)
    images = fixed_binarisation(greys) if binary else to_unit_range(greys)
    nats = log_likelihoods(archive, manifest, images, dataset.test_labels)
    if binary:
        mean_image = to_unit_range(train).mean(dim=0, keepdim=True)
        ceilings = {"mean_image": float(cross_entropy(mean_image.expand_as(images), images).mean())}
        unit = f"nats an image{given}"
        return {"negative_log_likelihood": over_images(-nats, unit=unit, better="lower", ceilings=ceilings)}
    bits = -nats / (manifest.upload_form.pixels * math.log(2))
    ceilings = {"independent_pixels": independent_bits(train, greys), "uniform": math.log2(GREYS)}
    return {"bits_per_dimension": over_images(bits, unit=f"bits{given}", better="lower", ceilings=ceilings)}


def log_likelihoods(archive: Any, manifest: Manifest, images: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of p(x), or of p(x given the label): images `(N, 1, H, W)` in [0, 1] to nats, float64 `(N,)`."""
    found = [
        archive.log_likelihood(*with_labels(manifest, rows, wanted)) for rows, wanted in batches(BATCH, images, labels)
    ]
    return torch.cat(found).double()


def independent_bits(train_images: Tensor, test_images: Tensor) -> float:
    """Bits a pixel of test images under the frequencies of each pixel's grey levels in training images, uint8 both.

    One is added to each count (Laplace), so that no grey level is impossible.
    """
    pixels = train_images[0].numel()
    places = GREYS * torch.arange(pixels)
    counts = torch.ones(pixels * GREYS, dtype=torch.int64)
    for batch in torch.split(train_images, COUNT_BATCH):
        counts += torch.bincount((batch.flatten(1) + places).flatten(), minlength=pixels * GREYS)
    bits = -(counts.double() / (len(train_images) + GREYS)).log2()
    sums = [bits[batch.flatten(1) + places].sum() for batch in torch.split(test_images, COUNT_BATCH)]
    return float(torch.stack(sums).sum() / (len(test_images) * pixels))

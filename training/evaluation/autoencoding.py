"""Figures of archives that encode and decode, on test images. Decoded images have no contrast applied."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, batches, to_unit_range
from training.evaluation.binarisation import fixed_binarisation
from training.evaluation.elbo import (
    ACTIVE,
    active_units,
    cross_entropy,
    elbo,
    importance_weighted_bound,
)
from training.evaluation.figures import given_text, over_images, over_seeds
from training.evaluation.resizing import area_averages
from training.generation import with_labels

BOUND_SAMPLES = 50
BATCH = 500


def codes_of(archive: Any, manifest: Manifest, images: Tensor, labels: Tensor) -> Tensor:
    """Images `(B, 1, H, W)` in [0, 1] and labels to codes `(B, latent)`: the posterior mean, or what `embed` gives."""
    inputs = with_labels(manifest, images, labels)
    codes: Tensor = archive.encode(*inputs)[0] if "encode" in manifest.capabilities else archive.embed(*inputs)
    return codes


@torch.no_grad()
def reconstruction_figures(archive: Any, manifest: Manifest, dataset: Dataset) -> dict[str, Figure]:
    """Errors of the test images decoded from their codes, as `codes_of` gives them and as the service reconstructs."""
    inputs = to_unit_range(area_averages(dataset.test_images, manifest.input_shape))
    images = to_unit_range(area_averages(dataset.test_images, manifest.image.shape))
    decoded = torch.cat(
        [
            archive.decode(*with_labels(manifest, codes_of(archive, manifest, rows, labels), labels))
            for rows, labels in batches(BATCH, inputs, dataset.test_labels)
        ]
    )
    mean_image = to_unit_range(area_averages(dataset.train_images, manifest.image.shape)).mean(dim=0, keepdim=True)
    unit = f"of pixels in [0, 1]{given_text(manifest)}"
    ceiling = float(mean_square(mean_image - images).mean())
    return {
        "mean_squared_error": over_images(
            mean_square(decoded - images), unit=unit, better="lower", floor=0, ceilings={"mean_image": ceiling}
        ),
        "cross_entropy_of_reconstructions": over_images(
            cross_entropy(decoded, images),
            unit=f"nats an image, of grey pixels{given_text(manifest)}",
            better="lower",
            **_bounds(mean_image, images),
        ),
    }


def mean_square(differences: Tensor) -> Tensor:
    """The mean over pixels of the square: `(N, 1, H, W)` to float64 `(N,)`."""
    return differences.double().square().flatten(1).mean(dim=1)


def elbo_figures(archive: Any, manifest: Manifest, dataset: Dataset, seeds: Sequence[int]) -> dict[str, Figure]:
    """The terms of the ELBO of all test images, one posterior sample per seed, and the active latent dimensions.

    On grey pixels, as their unit says, there is no likelihood. The bound on it is of binarised images, which are the
    same for all models.
    """
    images, labels, given = to_unit_range(dataset.test_images), dataset.test_labels, given_text(manifest)
    terms = [elbo(archive, manifest, images, labels, torch.Generator().manual_seed(seed)) for seed in seeds]
    bounds = _bounds(to_unit_range(dataset.train_images).mean(dim=0, keepdim=True), images)
    unit = f"nats an image, of grey pixels{given}"
    return {
        "negative_elbo": over_seeds(
            [float(term.negative.mean()) for term in terms], unit=unit, better="lower", **bounds
        ),
        "reconstruction_error": over_seeds(
            [float(term.reconstruction_error.mean()) for term in terms], unit=unit, better="lower", **bounds
        ),
        # The same for every seed: nothing in it is sampled.
        "kl_divergence": over_images(terms[0].kl_divergence, unit=f"nats an image{given}", better=None),
        "active_units": Figure(
            value=active_units(archive, manifest, images, labels),
            unit=f"of {manifest.latent_dim} latent dimensions, variance above {ACTIVE}",
            better=None,
        ),
        "importance_weighted_bound": bound_figure(archive, manifest, dataset, seeds[0]),
    }


def bound_figure(archive: Any, manifest: Manifest, dataset: Dataset, seed: int) -> Figure:
    """The importance-weighted bound on -log p(x) of all test images, binarised."""
    images, source = fixed_binarisation(dataset.test_images), torch.Generator().manual_seed(seed)
    bounds = importance_weighted_bound(archive, manifest, images, dataset.test_labels, BOUND_SAMPLES, source)
    unit = f"nats an image, {BOUND_SAMPLES} samples each{given_text(manifest)}"
    return over_images(bounds, unit=unit, better="lower")


def _bounds(mean_image: Tensor, images: Tensor) -> dict[str, Any]:
    return {
        "floor": float(cross_entropy(images, images).mean()),
        "ceilings": {"mean_image": float(cross_entropy(mean_image.expand_as(images), images).mean())},
    }

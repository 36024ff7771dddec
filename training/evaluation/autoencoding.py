"""Figures of archives that encode and decode, on test images."""

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.likelihood import (
    ACTIVE,
    Autoencoder,
    active_units,
    binarised,
    cross_entropy,
    elbo,
    importance_weighted_bound,
)

BOUND_IMAGES, BOUND_SAMPLES = 1_000, 500


def autoencoder_of(archive: nn.Module, manifest: Manifest) -> Autoencoder:
    """The two capabilities of an archive."""
    encode, decode = archive.encode, archive.decode
    if manifest.conditional:
        return Autoencoder(encode, decode)  # type: ignore[arg-type]
    return Autoencoder(lambda rows, _: encode(rows), lambda rows, _: decode(rows))  # type: ignore[operator]


def autoencoding_figures(
    archive: nn.Module, manifest: Manifest, dataset: Dataset, seeds: Sequence[int]
) -> dict[str, Figure]:
    """The terms of the ELBO of all test images, one posterior sample per seed, and the active latent dimensions.

    A model of binarised images is measured on binarised images, drawn for each seed. It also gets a bound on its
    likelihood, on fewer images, with their negative ELBO. On grey pixels, as the unit says, there is no likelihood.
    """
    autoencoder = autoencoder_of(archive, manifest)
    binary = bool(manifest.training.config.get("binarised"))
    labels = dataset.test_labels
    terms, images = [], to_unit_range(dataset.test_images)
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        if binary:
            images = binarised(dataset.test_images, source)
        terms.append(elbo(autoencoder, images, labels, source))
    errors = [term.reconstruction_error for term in terms]
    divergences = [term.kl_divergence for term in terms]
    sums = [term.negative for term in terms]
    bounds = _bounds(dataset, images)
    if binary:
        bounds["floor"] = None
    unit = "nats an image" if binary else "nats an image, of grey pixels"
    figures = {
        "negative_elbo": over_seeds(sums, unit=unit, better="lower", **bounds),
        "reconstruction_error": over_seeds(errors, unit=unit, better="lower", **bounds),
        "kl_divergence": over_seeds(divergences, unit="nats an image", better=None),
        "active_units": Figure(
            value=active_units(autoencoder, to_unit_range(dataset.test_images), labels),
            unit=f"of {manifest.latent_dim} latent dimensions, variance above {ACTIVE}",
            better=None,
        ),
    }
    return figures | _likelihood_figures(autoencoder, dataset, seeds) if binary else figures


def over_seeds(values: Sequence[float], **rest: object) -> Figure:
    """A figure from one value per seed: their mean and their standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Figure.model_validate({"value": statistics.fmean(values), "deviation": deviation} | rest)


def _bounds(dataset: Dataset, images: Tensor) -> dict[str, object]:
    mean_image = to_unit_range(dataset.train_images).mean(dim=0, keepdim=True)
    return {
        "floor": float(cross_entropy(images, images).mean()),
        "ceilings": {"mean_image": float(cross_entropy(mean_image.expand_as(images), images).mean())},
    }


def _likelihood_figures(autoencoder: Autoencoder, dataset: Dataset, seeds: Sequence[int]) -> dict[str, Figure]:
    # From all over the test set: the first half of MNIST's was written more neatly than the second.
    step = max(len(dataset.test_images) // BOUND_IMAGES, 1)
    greys, labels = (rows[::step][:BOUND_IMAGES] for rows in (dataset.test_images, dataset.test_labels))
    source = torch.Generator().manual_seed(seeds[0])
    images = binarised(greys, source)
    value, error = importance_weighted_bound(autoencoder, images, labels, BOUND_SAMPLES, source)
    terms = [elbo(autoencoder, images, labels, torch.Generator().manual_seed(seed)) for seed in seeds]
    unit = f"nats an image, {len(images):,} images"
    return {
        "importance_weighted_bound": Figure(
            value=value, standard_error=error, unit=f"{unit}, {BOUND_SAMPLES} samples each", better="lower"
        ),
        "negative_elbo_of_these_images": over_seeds([term.negative for term in terms], unit=unit, better="lower"),
    }

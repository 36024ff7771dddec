"""The evaluation protocol `digits-eval-2`. The capabilities of a checkpoint determine what is measured.

10,000 images per seed, with balanced labels and in 8 bits as from the service, are compared with the 10,000 test
images in the features of one pinned classifier. Each figure has a floor, that of 10,000 training images with labels as
those of the generated images, balanced or natural, and ceilings, those of noise, blurred images and a single class.
The floors of label agreement and of the distance to training images are those of test images, which the classifier has
not learned from.
Images that are not of the size of the data are compared with area averages of the data's, in pixels only.

Other data sets have protocols of their own names, with their own classifiers; without a classifier, the figures that
need one are left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality
from training.data import Dataset
from training.evaluation.accuracy import accuracy_score, classification_figures
from training.evaluation.autoencoding import elbo_figures, reconstruction_figures
from training.evaluation.feature_extractor import FeatureExtractor
from training.evaluation.fidelity import Comparison, label_agreement
from training.evaluation.figures import over_seeds
from training.evaluation.log_likelihood import log_likelihood_figures
from training.evaluation.memorisation import nearest
from training.evaluation.reference import Reference, real_draws
from training.evaluation.resizing import area_averages, size_text
from training.evaluation.upscaling import upscaling_figures
from training.generation import Controls, balanced_labels, draw_images, gives_labels

PROTOCOL = "digits-eval-2"
SEEDS = (0, 1, 2)
CONTROL_IMAGES = 5_000
# Images of a seed that are compared with all training images.
COPY_IMAGES = 2_000
# A near copy is nearer to a training image than all but this share of the test images.
COPY_SHARE = 0.01
TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
TRUNCATIONS = (0.5, 1.0, 2.0, None)

# SHA-256 of the weights of the pinned classifier.
EXTRACTOR = "fcf41e502e8ab99ded201772ffbf57517be20b33bcd1d3b444b66070a1b8ed8c"

FIDELITY = {
    "frechet_distance": ("squared distance in features", "lower"),
    "precision": ("fraction", "floor"),
    "recall": ("fraction", "higher"),
    "density": ("ratio", "floor"),
    "coverage": ("fraction", "higher"),
    "class_balance": ("entropy over its maximum", "floor"),
}
# Figures of the images under N(0, I) of a model whose default prior is another one.
NORMAL = "normal_prior_"
NORMAL_FIDELITY = ("frechet_distance", "precision", "recall")


def measure_quality(
    archive: nn.Module, manifest: Manifest, reference: Reference, seeds: Sequence[int] = SEEDS
) -> Quality:
    """Measure the float32 archive of a checkpoint. The same seeds give the same figures.

    As many images are generated as there are test images, up to 10,000. Raises NotANumber.
    """
    dataset, capabilities = reference.dataset, set(manifest.capabilities)
    fits = manifest.image.shape == dataset.test_images.shape[1:]
    extractor = reference.extractor if fits and {"generate", "upscale"} & capabilities else None
    figures: dict[str, Figure] = {}
    controls: list[ControlEffect] = []
    if "generate" in capabilities:
        figures = generation_figures(archive, manifest, reference, seeds)
        if extractor is not None:
            controls = control_effects(archive, manifest, reference, extractor, seeds[0])
    if {"encode", "decode"} <= capabilities and manifest.input_shape == manifest.image.shape and fits:
        figures |= elbo_figures(archive, manifest, dataset, seeds)
    if "decode" in capabilities and {"encode", "embed"} & capabilities:
        figures |= reconstruction_figures(archive, manifest, dataset)
    if "log_likelihood" in capabilities:
        figures |= log_likelihood_figures(archive, manifest, dataset)
    if "upscale" in capabilities:
        figures |= upscaling_figures(archive, manifest, dataset, extractor)
    if "classify" in capabilities:
        figures |= classification_figures(archive, manifest, dataset)
    return Quality(
        protocol=protocol_name(reference),
        extractor=None if extractor is None else extractor.record.sha256,
        images=reference.count,
        seeds=tuple(seeds),
        figures=figures | manifest.training.figures,
        control_images=control_count(reference),
        controls=tuple(controls),
    )


def protocol_name(reference: Reference) -> str:
    """`digits-eval-2` for its pinned classifier, else a name made of the data set's."""
    pinned = reference.extractor is not None and reference.extractor.record.sha256 == EXTRACTOR
    return PROTOCOL if pinned else f"{reference.dataset.name.lower()}-eval-2"


def generation_figures(
    archive: nn.Module, manifest: Manifest, reference: Reference, seeds: Sequence[int]
) -> dict[str, Figure]:
    """Figures of the images of each seed, which are generated once."""
    dataset, labelled = reference.dataset, gives_labels(manifest)
    labels = balanced_labels(reference.count, len(dataset.classes))
    generated = [draw_images(archive, manifest, labels, seed) for seed in seeds]
    if manifest.image.shape != dataset.test_images.shape[1:]:
        return copy_figures(generated, manifest, dataset)
    figures: dict[str, Figure] = {}
    if reference.extractor is not None:
        figures |= fidelity_figures(generated, reference, balanced=labelled)
        if "normal" in manifest.priors[1:]:
            figures |= normal_prior_figures(archive, manifest, reference, labels, seeds)
        if labelled:
            figures["label_agreement"] = agreement_figure(generated, labels, reference, reference.extractor)
    if labelled:
        figures |= accuracy_score(generated, labels, dataset, reference.trained_accuracies)
    return figures | copy_figures(generated, manifest, dataset)


def fidelity_figures(generated: Sequence[Tensor], reference: Reference, *, balanced: bool) -> dict[str, Figure]:
    """Figures of the images of each seed against the test images, with floor and ceilings.

    `balanced`: whether the labels of the images are; else the floor has natural frequencies.
    """
    measured = [reference.measure(images) for images in generated]
    floors = reference.floors(balanced=balanced)
    return {
        name: over_seeds(
            [values[name] for values in measured],
            [values[name] for values in floors],
            unit=unit,
            better=better,
            ceilings={ceiling: values[name] for ceiling, values in reference.ceilings.items()},
        )
        for name, (unit, better) in FIDELITY.items()
    }


def normal_prior_figures(
    archive: nn.Module, manifest: Manifest, reference: Reference, labels: Tensor, seeds: Sequence[int]
) -> dict[str, Figure]:
    """Some of the figures for latents from N(0, I)."""
    controls = Controls(prior="normal")
    generated = [draw_images(archive, manifest, labels, seed, controls) for seed in seeds]
    figures = fidelity_figures(generated, reference, balanced=gives_labels(manifest, controls))
    return {NORMAL + name: figures[name] for name in NORMAL_FIDELITY}


def agreement_figure(
    generated: Sequence[Tensor], labels: Tensor, reference: Reference, extractor: FeatureExtractor
) -> Figure:
    """How often the classifier recognises the requested label. The floor is that of draws of test images."""
    values = [label_agreement(extractor.probabilities(extractor.features(images)), labels) for images in generated]
    ceiling = {"chance": 1 / extractor.record.classes}
    return over_seeds(values, reference.label_agreements, unit="fraction", better="higher", ceilings=ceiling)


def copy_figures(generated: Sequence[Tensor], manifest: Manifest, dataset: Dataset) -> dict[str, Figure]:
    """How near the images of each seed are to training images, in pixels. The floor is that of draws of test images."""
    shape = manifest.image.shape
    size = "" if shape == dataset.test_images.shape[1:] else f", at {size_text(shape)}"
    train_images = area_averages(dataset.train_images[: manifest.dataset.train_images], shape)
    draws = real_draws(dataset.test_labels, COPY_IMAGES, balanced=gives_labels(manifest))
    real = [nearest(area_averages(dataset.test_images[rows], shape), train_images)[0] for rows in draws]
    bound = torch.cat(real).quantile(COPY_SHARE)
    ours = [nearest(images[:COPY_IMAGES], train_images)[0] for images in generated]

    def shares(distances: Sequence[Tensor]) -> list[float]:
        return [float((found < bound).double().mean()) for found in distances]

    return {
        "nearest_training_distance": over_seeds(
            [float(found.mean()) for found in ours],
            [float(found.mean()) for found in real],
            unit=f"Euclidean distance in pixels of 0 to 1{size}",
            better="floor",
            ceilings={"training_images": 0.0},
        ),
        "near_copies": over_seeds(
            shares(ours), shares(real), unit=f"fraction{size}", better="floor", ceilings={"training_images": 1.0}
        ),
    }


def control_count(reference: Reference) -> int:
    """The number of images for each setting of the sampling controls."""
    return min(CONTROL_IMAGES, reference.count)


def control_effects(
    archive: nn.Module, manifest: Manifest, reference: Reference, extractor: FeatureExtractor, seed: int
) -> list[ControlEffect]:
    """Figures under each prior, temperature and truncation of the model, of one image for each label.

    A sequential model, which takes long to generate, has none.
    """
    if manifest.sequential:
        return []
    count, dataset = control_count(reference), reference.dataset
    labels = balanced_labels(count, len(dataset.classes))
    # From all over the test set: its halves were written by different people.
    comparison = Comparison(extractor, dataset.test_images[:: max(reference.count // count, 1)][:count])
    effects = []
    for controls in control_settings(manifest):
        images = draw_images(archive, manifest, labels, seed, controls)
        effects.append(
            ControlEffect(
                prior=controls.prior or manifest.priors[0],
                temperature=controls.temperature,
                truncation=controls.truncation,
                figures=comparison.figures(images, labels if gives_labels(manifest, controls) else None),
            )
        )
    return effects


def control_settings(manifest: Manifest) -> list[Controls]:
    """The settings of the sampling controls that are measured."""
    settings = [Controls(prior=prior) for prior in manifest.priors[1:]]
    if "temperature" in manifest.sampling:
        settings += [Controls(temperature=temperature) for temperature in TEMPERATURES]
    if "truncation" in manifest.sampling:
        settings += [Controls(truncation=truncation) for truncation in TRUNCATIONS]
    return settings

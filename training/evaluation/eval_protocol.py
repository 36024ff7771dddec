"""The evaluation protocol `digits-eval-1`. The capabilities of a checkpoint determine what is measured.

10,000 images per seed, with labels in turn and quantised to 8 bits as by the service, are compared with the 10,000 test
images in the features of one pinned classifier. Each figure has a floor, that of 10,000 training images, and ceilings,
those of noise, blurred images and a single class. Other data sets have protocols of their own names, with their own
classifiers; without a classifier, the figures that need one are left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import functional  # type: ignore[import-untyped]

from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality
from training.data import Dataset
from training.evaluation.autoencoding import autoencoding_figures, over_seeds
from training.evaluation.feature_extractor import FeatureExtractor
from training.evaluation.fidelity import (
    Comparison,
    class_balance,
    confidence,
    density_coverage,
    frechet_distance,
    kernel_distance,
    label_agreement,
    precision_recall,
)
from training.evaluation.memorisation import nearest
from training.generation import Controls, draw_images, gives_labels, labels_in_turn

IMAGES = 10_000
SEEDS = (0, 1, 2)
CONTROL_IMAGES = 5_000
# Images of a seed that are compared with all training images.
COPY_IMAGES = 2_000
# A near copy is nearer to a training image than all but this share of the test images.
COPY_SHARE = 0.01
TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
TRUNCATIONS = (0.5, 1.0, 2.0, None)
BLUR = 1.5  # of a ceiling: standard deviation in pixels

# SHA-256 of the weights of the pinned classifier.
EXTRACTOR = "fcf41e502e8ab99ded201772ffbf57517be20b33bcd1d3b444b66070a1b8ed8c"

FIDELITY = {
    "frechet_distance": ("squared distance in features", "lower"),
    "kernel_distance": ("squared maximum mean discrepancy", "lower"),
    "precision": ("fraction", "higher"),
    "recall": ("fraction", "higher"),
    "density": ("ratio", "floor"),
    "coverage": ("fraction", "higher"),
    "class_balance": ("entropy over its maximum", "higher"),
    "confidence": ("probability", "higher"),
}


def measure_quality(
    archive: nn.Module,
    manifest: Manifest,
    dataset: Dataset,
    extractor: FeatureExtractor | None,
    seeds: Sequence[int] = SEEDS,
) -> Quality:
    """Measure the float32 archive of a checkpoint. The same seeds give the same figures.

    As many images are generated as there are test images, up to 10,000. Raises NotANumber.
    """
    count = min(IMAGES, len(dataset.test_images))
    control_count = min(CONTROL_IMAGES, count)
    capabilities = set(manifest.capabilities)
    figures: dict[str, Figure] = {}
    controls: list[ControlEffect] = []
    if "generate" in capabilities:
        labels = labels_in_turn(count, len(dataset.classes))
        generated = [draw_images(archive, manifest, labels, seed) for seed in seeds]
        if extractor is not None:
            figures |= fidelity_figures(generated, dataset, extractor, count)
            if gives_labels(manifest):
                figures["label_agreement"] = agreement_figure(generated, labels, extractor)
            # From all over the test set: its halves were written by different people.
            real = dataset.test_images[:: max(count // control_count, 1)][:control_count]
            comparison = Comparison(extractor, real)
            controls = control_effects(archive, manifest, comparison, labels[:control_count], seeds[0])
        figures |= copy_figures(generated, dataset.train_images[: manifest.dataset.train_images], dataset.test_images)
    if {"encode", "decode"} <= capabilities:
        figures |= autoencoding_figures(archive, manifest, dataset, seeds)
    return Quality(
        protocol=protocol_name(dataset, extractor),
        extractor=None if extractor is None else extractor.record.sha256,
        images=count,
        seeds=tuple(seeds),
        figures=figures,
        control_images=control_count,
        controls=tuple(controls),
    )


def protocol_name(dataset: Dataset, extractor: FeatureExtractor | None) -> str:
    """`digits-eval-1` for its pinned classifier, else a name made of the data set's."""
    pinned = extractor is not None and extractor.record.sha256 == EXTRACTOR
    return "digits-eval-1" if pinned else f"{dataset.name.lower()}-eval-1"


def fidelity_figures(
    generated: Sequence[Tensor], dataset: Dataset, extractor: FeatureExtractor, count: int
) -> dict[str, Figure]:
    """Figures of the images of each seed against the test images, with floor and ceilings."""
    real = extractor.features(dataset.test_images[:count])
    measured = [measure(images, real, extractor) for images in generated]
    floor = measure(real_images(dataset, count), real, extractor)
    useless = {name: measure(images, real, extractor) for name, images in useless_images(dataset, count).items()}
    return {
        name: over_seeds(
            [values[name] for values in measured],
            unit=unit,
            better=better,
            floor=floor[name],
            ceilings={ceiling: values[name] for ceiling, values in useless.items()},
        )
        for name, (unit, better) in FIDELITY.items()
    }


def measure(images: Tensor, real: Tensor, extractor: FeatureExtractor) -> dict[str, float]:
    """The figures of uint8 images `(N, 1, H, W)` against real features `(M, 84)`."""
    features = extractor.features(images)
    probabilities = extractor.probabilities(features)
    precision, recall = precision_recall(features, real)
    density, coverage = density_coverage(features, real)
    return {
        "frechet_distance": frechet_distance(features, real),
        "kernel_distance": kernel_distance(features, real),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "class_balance": class_balance(probabilities),
        "confidence": confidence(probabilities),
    }


def agreement_figure(generated: Sequence[Tensor], labels: Tensor, extractor: FeatureExtractor) -> Figure:
    """How often the classifier recognises the requested label. The floor is its accuracy on test images."""
    values = [
        label_agreement(extractor.probabilities(extractor.features(images)), labels[: len(images)])
        for images in generated
    ]
    record = extractor.record
    ceiling = {"chance": 1 / record.classes}
    return over_seeds(values, unit="fraction", better="higher", floor=record.test_accuracy, ceilings=ceiling)


def copy_figures(generated: Sequence[Tensor], train_images: Tensor, test_images: Tensor) -> dict[str, Figure]:
    """How near the images of each seed are to training images, in pixels. The floor is that of the test images."""
    natural, _ = nearest(test_images[:COPY_IMAGES], train_images)
    bound = natural.quantile(COPY_SHARE)
    distances = [nearest(images[:COPY_IMAGES], train_images)[0] for images in generated]
    return {
        "nearest_training_distance": over_seeds(
            [float(found.mean()) for found in distances],
            unit="Euclidean distance in pixels of 0 to 1",
            better="floor",
            floor=float(natural.mean()),
            ceilings={"training_images": 0.0},
        ),
        "near_copies": over_seeds(
            [float((found < bound).double().mean()) for found in distances],
            unit="fraction",
            better="floor",
            floor=float((natural < bound).double().mean()),
            ceilings={"training_images": 1.0},
        ),
    }


def control_effects(
    archive: nn.Module, manifest: Manifest, comparison: Comparison, labels: Tensor, seed: int
) -> list[ControlEffect]:
    """Figures under each prior, temperature and truncation of the model, of one image for each label."""
    ways = [Controls(prior=prior) for prior in manifest.priors[1:]]
    if "temperature" in manifest.sampling:
        ways += [Controls(temperature=temperature) for temperature in TEMPERATURES]
    if "truncation" in manifest.sampling:
        ways += [Controls(truncation=truncation) for truncation in TRUNCATIONS]
    effects = []
    for controls in ways:
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


def real_images(dataset: Dataset, count: int) -> Tensor:
    """The floor: random training images, uint8 `(N, 1, H, W)` with N at most `count`."""
    order = torch.randperm(len(dataset.train_images), generator=torch.Generator().manual_seed(0))
    return dataset.train_images[order[:count]]


def useless_images(dataset: Dataset, count: int) -> dict[str, Tensor]:
    """The ceilings by name, uint8 `(N, 1, H, W)` with N at most `count`.

    They are uniform noise, the images of the floor after a Gaussian blur, and training images of the first class.
    """
    real = real_images(dataset, count)
    noise = torch.randint(256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    size = 2 * round(3 * BLUR) + 1
    blurred: Tensor = functional.gaussian_blur(real.float(), [size, size], [BLUR, BLUR])
    return {
        "noise": noise,
        "blurred": blurred.round().to(torch.uint8),
        "one_class": dataset.train_images[dataset.train_labels == 0][:count],
    }

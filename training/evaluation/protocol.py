"""The protocol `digits-eval-1`: generated images against test images no model has seen. Knows capabilities only.

10,000 images a seed, of labels in turn and quantised to 8 bits as the service does, against the 10,000 test images, in
the features of one pinned classifier. Each of their figures stands beside its floor, what 10,000 training images get,
and its ceilings, what noise, blurred digits and one class only get. Other data go the same way under a name of their
own, in the features of their own classifier; without one, the figures that need it are left out.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality
from training.data import Dataset
from training.evaluation.autoencoding import autoencoding_figures, over_seeds
from training.evaluation.extractor import Extractor
from training.evaluation.fidelity import (
    class_balance,
    confidence,
    density_coverage,
    frechet_distance,
    kernel_distance,
    label_agreement,
    precision_recall,
)
from training.evaluation.memorisation import nearest
from training.evaluation.monitor import Monitor
from training.evaluation.references import ceilings, real_images
from training.sampling import Controls, balanced, draw_images, gives_labels

IMAGES = 10_000
SEEDS = (0, 1, 2)
CONTROL_IMAGES = 5_000
# Of the images of a seed, those that are compared with every training image.
COPY_IMAGES = 2_000
# An image nearer to a training image than all but this share of the test images are is taken for a near copy.
COPY_SHARE = 0.01
TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
TRUNCATIONS = (0.5, 1.0, 2.0, None)

# SHA-256 of the weights of the classifier that the protocol means.
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


def evaluate(
    archive: nn.Module, manifest: Manifest, dataset: Dataset, extractor: Extractor | None, seeds: Sequence[int] = SEEDS
) -> Quality:
    """Measure what the float32 archive of a manifest can do. The same seeds give the same figures.

    Where there are fewer than 10,000 test images, as many are generated. Raises NotANumber.
    """
    count = min(IMAGES, len(dataset.test_images))
    labels = balanced(count, len(dataset.classes))
    figures: dict[str, Figure] = {}
    controls: list[ControlEffect] = []
    control_count = min(CONTROL_IMAGES, count)
    if "generate" in manifest.capabilities:
        generated = [draw_images(archive, manifest, labels, seed) for seed in seeds]
        if extractor is not None:
            figures |= fidelity_figures(generated, dataset, extractor, count)
            if gives_labels(manifest):
                figures["label_agreement"] = agreement_figure(generated, labels, extractor)
            # Spread over the test images: in MNIST the first half was written by other people than the second.
            monitor = Monitor(extractor, dataset.test_images[:: max(count // control_count, 1)][:control_count])
            controls = control_effects(archive, manifest, monitor, labels[:control_count], seeds[0])
        figures |= copy_figures(generated, dataset.train_images[: manifest.dataset.train_images], dataset.test_images)
    if "encode" in manifest.capabilities and "decode" in manifest.capabilities:
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


def protocol_name(dataset: Dataset, extractor: Extractor | None) -> str:
    """`digits-eval-1` in the features of its own classifier, else named for the data."""
    pinned = extractor is not None and extractor.record.sha256 == EXTRACTOR
    return "digits-eval-1" if pinned else f"{dataset.name.lower()}-eval-1"


def fidelity_figures(
    generated: Sequence[Tensor], dataset: Dataset, extractor: Extractor, count: int
) -> dict[str, Figure]:
    """How far the images of each seed are from the test images, beside the floor and the ceilings."""
    real = extractor.features(dataset.test_images[:count])
    measured = [measure(images, real, extractor) for images in generated]
    floor = measure(real_images(dataset, count), real, extractor)
    useless = {name: measure(images, real, extractor) for name, images in ceilings(dataset, count).items()}
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


def measure(images: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
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


def agreement_figure(generated: Sequence[Tensor], labels: Tensor, extractor: Extractor) -> Figure:
    """How often the classifier names the label that was asked for; its floor is how often it is right itself."""
    values = [
        label_agreement(extractor.probabilities(extractor.features(images)), labels[: len(images)])
        for images in generated
    ]
    record = extractor.record
    ceiling = {"chance": 1 / record.classes}
    return over_seeds(values, unit="fraction", better="higher", floor=record.test_accuracy, ceilings=ceiling)


def copy_figures(generated: Sequence[Tensor], train_images: Tensor, test_images: Tensor) -> dict[str, Figure]:
    """How near the images of each seed are to training images, in pixels, beside the test images."""
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
    archive: nn.Module, manifest: Manifest, monitor: Monitor, labels: Tensor, seed: int
) -> list[ControlEffect]:
    """What each prior, temperature and truncation that the model offers does, for as many images as labels."""
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
                figures=monitor.figures(images, labels if gives_labels(manifest, controls) else None),
            )
        )
    return effects

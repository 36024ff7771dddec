"""The measured quality of models in Markdown: what was compared, tables of figures, and what each figure means."""

import math
from collections.abc import Mapping, Sequence

from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality
from training.data import IMAGE_SHAPE
from training.evaluation.eval_protocol import COPY_IMAGES, NORMAL, NORMAL_FIDELITY, PROTOCOL
from training.evaluation.resizing import size_text
from training.generation import gives_labels

# The explanations of figures of generated images, which the table of several models has in columns. `copies` is the
# number of images that were compared with training images.
GENERATED = {
    "frechet_distance": "between normal distributions fitted to the features of generated and of test images; near "
    "that of real images it measures contrast and the sharpness of edges, compare slightly blurred images",
    "precision": "share of generated images in the manifold of the test images; smooth images, and even noise, have "
    "more than real images",
    "recall": "share of test images in the manifold of the generated images",
    "density": "number of neighbourhoods of test images that a generated image is in, relative to the expected five",
    "coverage": "share of test images with a generated image in their neighbourhood",
    "class_balance": "entropy of the classes that the classifier predicts, 1 where all are equally frequent",
    "normal_prior_frechet_distance": "the Frechet distance of images of latents from N(0, I), not from the mixtures",
    "normal_prior_precision": "the precision of these images",
    "normal_prior_recall": "the recall of these images",
    "label_agreement": "share of images for which the classifier predicts the requested label",
    "classification_accuracy_score": "accuracy on the test images of a LeNet-5 trained on the generated images of a "
    "seed with the requested labels; that of real images, of one trained on as many training images",
    "nearest_training_distance": "mean of {copies} images; copies have 0, and smooth images are near to all others",
    "near_copies": "share of {copies} images nearer to a training image than all but 1 % of the test images with "
    "the same label distribution are; that of real images is 1 % by construction",
}
# The explanations of all other figures.
OTHERS = {
    "negative_elbo": "reconstruction error plus KL divergence",
    "reconstruction_error": "binary cross-entropy of the test images, one posterior sample each",
    "kl_divergence": "of q(z given x) from N(0, I)",
    "active_units": "latent dimensions whose posterior mean varies over the images",
    "importance_weighted_bound": "upper bound on -log p(x) under N(0, I) of all test images, binarised once with a "
    "fixed seed; Burda et al., 2016, report 86.76 for a VAE with one stochastic layer, at 5,000 samples",
    "negative_log_likelihood": "-log p(x) of all test images, binarised once with a fixed seed",
    "bits_per_dimension": "-log2 p(x) of all 8-bit test images over the number of pixels; of a flow an upper bound, "
    "estimated with one fixed draw of the dequantisation noise; for comparison a model of independent pixels and "
    "one of random bytes",
    "mean_squared_error": "of the test images decoded from their code, the posterior mean where the encoder has one",
    "cross_entropy_of_reconstructions": "binary cross-entropy of the test images, decoded in the same way",
    "psnr": "peak signal-to-noise ratio of the upscaled test images, mean over the images; the inputs are their area "
    "averages in 8 bits",
    "upscaled_accuracy": "accuracy of the classifier on the upscaled test images; that of real images, on the "
    "originals",
    "upscaled_frechet_distance": "between the features of the upscaled test images and of the originals",
    "accuracy": "share of test images whose likeliest class is their label",
    "negative_log_likelihood_of_labels": "-log of the probability of the label of a test image",
    "expected_calibration_error": "mean difference of confidence and accuracy, over bins of the confidence",
    "round_trip_errors": "pixels of the test images that have another grey level after encoding and decoding",
    "lower_rbm_negative_log_likelihood": "-log p(x) under the lower Boltzmann machine alone, with log Z by annealed "
    "importance sampling, whose error is part of the standard error; the whole network has no tractable likelihood",
}
MEANING = GENERATED | OTHERS
# The data's labels have their natural frequencies; a model that takes labels is asked for balanced ones.
BALANCED, NATURAL = "real images, balanced labels", "real images, natural labels"
BETTER = {"lower": "lower", "higher": "higher", "floor": "near real images", None: ""}


def quality_text(manifest: Manifest) -> str:
    """The chapter on quality: protocol, figures, and the effect of the sampling controls."""
    quality = manifest.quality
    if quality is None:
        return "## Quality\n\nNot measured yet."
    if not quality.figures:
        return f"## Quality\n\nThe protocol `{quality.protocol}` has no figures for these capabilities."
    copies = f"{min(COPY_IMAGES, quality.images):,}"
    meanings = "\n".join(
        f"- {in_words(name)}: {MEANING[name].format(copies=copies)}" for name in quality.figures if name in MEANING
    )
    return f"""## Quality, protocol `{quality.protocol}`

{protocol_text(manifest, quality)}

{figures_table(quality.figures)}

{meanings}

{controls_text(quality)}""".rstrip()


def protocol_text(manifest: Manifest, quality: Quality) -> str:
    """What was compared, in which features, and what the columns beside the values are."""
    text = ["Measured with the float32 archive on the test images."]
    if "generate" in manifest.capabilities:
        seeds = ", ".join(str(seed) for seed in quality.seeds)
        text = [f"{quality.images:,} images of each of the seeds {seeds}, in 8 bits, from the float32 archive."]
    if quality.extractor is not None:
        text.append(f"Features are those of the LeNet-5 with SHA-256 `{quality.extractor}`.")
    elif {"generate", "upscale"} & set(manifest.capabilities):
        if manifest.image.shape != IMAGE_SHAPE:
            size = size_text(manifest.image.shape)
            cause = f"Images of {size} are compared with area averages of the data's, and no classifier takes them"
        else:
            cause = "There is no classifier of this data"
        text.append(f"{cause}: the figures that need one are left out.")
    text.append("Values are means over the seeds ± their standard deviation, or over the test images.")
    if "frechet_distance" in quality.figures:
        labels = "with balanced labels" if gives_labels(manifest) else "with natural frequencies of the labels"
        text.append(
            f"`real images`: the figure of real images in place of generated ones, {labels}, ± its standard deviation "
            "over disjoint draws, or of a perfect model. They are training images, but test images for the distance to "
            "training images and for label agreement: the classifier has seen the training images."
        )
    else:
        text.append("`real images`: the figure of real images, or of a perfect model.")
    text.append("`for comparison`: the figures of noise, blurred images, a single class, or simpler models.")
    if manifest.conditional and {"encode", "embed", "log_likelihood"} & set(manifest.capabilities):
        worth = f"up to ln {len(manifest.classes)} = {math.log(len(manifest.classes)):.1f} nats"
        text.append(f"Where the unit says so, the model is given the label of a test image, which is worth {worth}.")
    return " ".join(text)


def figures_table(figures: Mapping[str, Figure]) -> str:
    """A table of figures, one in a row."""
    head = ["figure", "value", "real images", "for comparison", "better", "unit"]
    return table(head, [figure_row(name, figure) for name, figure in figures.items()])


def figure_row(name: str, figure: Figure) -> list[str]:
    """One row of the table of figures."""
    ceilings = ", ".join(f"{in_words(ceiling)} {number(reached)}" for ceiling, reached in figure.ceilings.items())
    return [in_words(name), value_text(figure), floor_text(figure), ceilings, BETTER[figure.better], figure.unit]


def value_text(figure: Figure) -> str:
    """A value with its deviation or its standard error."""
    value = number(figure.value)
    if figure.deviation is not None:
        value += f" ± {figure.deviation:.2g}"
    if figure.standard_error is not None:
        value += f" (standard error {figure.standard_error:.2g})"
    return value


def floor_text(figure: Figure) -> str:
    """The figure of real images with its deviation, or nothing."""
    return number(figure.floor) + ("" if figure.floor_deviation is None else f" ± {figure.floor_deviation:.2g}")


def controls_text(quality: Quality) -> str:
    """Figures under each setting of the sampling controls."""
    if not quality.controls:
        return ""
    names = list({name: None for effect in quality.controls for name in effect.figures})
    rows = [
        [setting_text(effect), *(number(effect.figures.get(name)) for name in names)] for effect in quality.controls
    ]
    return f"""### Sampling controls

{quality.control_images:,} images of seed {quality.seeds[0]} against as many test images. These rows are comparable with
each other, but not with the table above.

{table(["latents", *map(in_words, names)], rows)}
"""


def setting_text(effect: ControlEffect) -> str:
    """One setting of the sampling controls."""
    text = f"{effect.prior} prior, temperature {effect.temperature:g}"
    return text if effect.truncation is None else f"{text}, truncation {effect.truncation:g}"


def quality_tables(manifests: Sequence[Manifest]) -> str:
    """The figures of all measured models, in chapters by protocol: figures of two protocols cannot be compared."""
    protocols = list({manifest.quality.protocol: None for manifest in manifests if manifest.quality})
    protocols.sort(key=lambda protocol: protocol != PROTOCOL)  # that of the digits comes first
    chapters = []
    for protocol in protocols:
        alike = [manifest for manifest in manifests if manifest.quality and manifest.quality.protocol == protocol]
        chapters.append(f"### Protocol `{protocol}`\n\n{quality_table(alike)}")
    return "\n\n".join(chapters)


def quality_table(manifests: Sequence[Manifest]) -> str:
    """The figures of several models of one protocol: a table of generated images, and one of all other figures.

    The first has a row for each model, for the floors with balanced labels and natural ones, and for each ceiling. The
    second has a row for each other figure of MEANING of a model, with its own floor and ceilings.
    """
    measured = {manifest.name: manifest.quality.figures for manifest in manifests if manifest.quality}
    generators = [manifest for manifest in manifests if "frechet_distance" in measured.get(manifest.name, {})]
    parts = [generation_table(generators)] if generators else []
    compared = {manifest.name for manifest in generators}
    order = list(MEANING)
    others = sorted(
        (order.index(name), figure.unit, model, name)
        for model, figures in measured.items()
        for name, figure in figures.items()
        if name in OTHERS or (name in GENERATED and model not in compared)
    )
    rows = []
    for _, _, model, name in others:
        first, *cells = figure_row(name, measured[model][name])
        rows.append([first, f"`{model}`", *cells])
    if rows:
        parts.append(table(["figure", "model", "value", "real images", "for comparison", "better", "unit"], rows))
    return "\n\n".join(parts)


def generation_table(manifests: Sequence[Manifest]) -> str:
    """Figures of generated images: models, floors and ceilings in rows.

    A model whose default prior is fitted has a second row, of latents from N(0, I).
    """
    figures = {manifest.name: manifest.quality.figures for manifest in manifests if manifest.quality}
    names = [name for name in GENERATED if any(name in found for found in figures.values())]
    names = [name for name in names if name not in {NORMAL + other for other in NORMAL_FIDELITY}]
    known = [next(found[name] for found in figures.values() if name in found) for name in names]
    rows = [["better", *(BETTER[figure.better] for figure in known)]]
    for model, found in figures.items():
        rows.append([f"`{model}`", *(value_text(found[name]) if name in found else "" for name in names)])
        normal = [value_text(found[NORMAL + name]) if NORMAL + name in found else "" for name in names]
        if any(normal):
            rows.append([f"`{model}`, N(0, I)", *normal])
    for title, balanced in ((BALANCED, True), (NATURAL, False)):
        alike = [figures[manifest.name] for manifest in manifests if gives_labels(manifest) == balanced]
        floors = [next((floor_text(found[name]) for found in alike if name in found), "") for name in names]
        if any(floors):
            rows.append([title, *floors])
    ceilings = list({ceiling: None for figure in known for ceiling in figure.ceilings})
    rows += [[in_words(name), *(number(figure.ceilings.get(name)) for figure in known)] for name in ceilings]
    return table(["images of", *map(in_words, names)], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def in_words(name: str) -> str:
    """The name of a figure or a ceiling in words."""
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """A figure with four digits, or nothing."""
    return "" if value is None else f"{value:.4g}"

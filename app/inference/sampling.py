"""Sources of latents and labels: a seed with sampling options, or latents of the caller.

All checks happen when a source is created, on the event loop. The rows are drawn later, on a worker, for a whole batch.
A row is a pure function of its source and its index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import EVERY_CLASS, Control, Manifest, Prior
from app.errors import CapabilityMissing, InvalidRequest
from app.inference.latents import COMPONENT_STREAM, LATENT_STREAM, normal, raw_rows, tail, uniform_labels
from app.inference.model import Model
from app.inference.runtime import Labels, Rows

Scalar = TypeVar("Scalar", bound=np.generic)

# Class names that an error lists: a model may have hundreds.
MAX_NAMED_CLASSES = 20
# Sigmoid networks saturate far below; beyond it float32 sums may overflow.
MAX_LATENT = 1000.0

# A class, classes taken in turn, or `balanced` for all classes in turn.
LabelRequest = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How latents are drawn. None selects the default of the model."""

    label: LabelRequest = None
    prior: Prior | None = None
    temperature: float | None = None
    truncation: float | None = None


@dataclass(frozen=True, slots=True)
class Seeded:
    """Latents and labels of a seed."""

    seed: int
    width: int  # of a latent
    prior: Prior
    temperature: float | None
    truncation: float | None
    classes: tuple[int, ...] | None  # of the images in turn; None: drawn from the seed
    class_count: int  # 0: the images have no labels

    def labels(self, first: int, count: int) -> Labels | None:
        """`(count,)`, None if the images have no labels."""
        if self.classes is not None:
            return _cycled(self.classes, first, count)
        return uniform_labels(self.seed, first, count, self.class_count) if self.class_count else None


@dataclass(frozen=True, slots=True)
class Given:
    """Latents of the caller, `(n, latent)`, and the classes of the images in turn, if the model needs labels."""

    latents: Rows
    classes: tuple[int, ...] | None

    def labels(self, first: int, count: int) -> Labels | None:
        """`(count,)`, None if the model takes no labels."""
        return None if self.classes is None else _cycled(self.classes, first, count)


Source = Seeded | Given
# Rows `first` to `first + count - 1` of a source.
Slice = tuple[Source, int, int]


def seeded(manifest: Manifest, options: SamplingOptions, seed: int) -> Seeded:
    """The source of a seed. Raises CapabilityMissing and InvalidRequest for options that the model does not support."""
    if options.label is not None and not manifest.has_labels:
        raise CapabilityMissing(f"model {manifest.name} cannot generate by label")
    prior = prior_of(manifest, options.prior)
    _check_controls(manifest, options)
    classes = class_indices(manifest, options.label)
    has_labels = manifest.gives_labels(prior)
    if classes is not None and not has_labels:
        raise InvalidRequest(f"model {manifest.name} has labels only with the prior fitted")
    return Seeded(
        seed,
        manifest.shape(Symbol.LATENT)[0],
        prior,
        options.temperature,
        options.truncation,
        classes,
        len(manifest.classes) if has_labels else 0,
    )


def given(manifest: Manifest, latents: Sequence[Sequence[float]], label: LabelRequest) -> Given:
    """The source of a caller's latents. Raises InvalidRequest for latents and labels that do not fit the model."""
    (width,) = manifest.shape(Symbol.LATENT)
    if any(len(row) != width for row in latents):
        raise InvalidRequest(f"a latent of model {manifest.name} has {width} numbers")
    rows = np.array(latents, dtype=np.float64)
    if not (np.abs(rows) <= MAX_LATENT).all():  # false for NaN
        raise InvalidRequest(f"the numbers of a latent are finite and between -{MAX_LATENT:g} and {MAX_LATENT:g}")
    return Given(rows.astype(np.float32), input_classes(manifest, label))


def prior_of(manifest: Manifest, prior: Prior | None) -> Prior:
    """The requested prior, else the default one. Raises InvalidRequest for one that the model does not have."""
    if prior is None:
        return manifest.priors[0]
    if prior not in manifest.priors:
        raise InvalidRequest(f"model {manifest.name} has only the prior {' and '.join(manifest.priors)}")
    return prior


def _check_controls(manifest: Manifest, options: SamplingOptions) -> None:
    requested: dict[Control, float | None] = {"temperature": options.temperature, "truncation": options.truncation}
    if any(value is not None and control not in manifest.sampling for control, value in requested.items()):
        supported = " and ".join(manifest.sampling) or "neither temperature nor truncation"
        raise InvalidRequest(f"model {manifest.name} supports {supported}")


def input_classes(manifest: Manifest, label: LabelRequest) -> tuple[int, ...] | None:
    """The classes of the caller's input: required by a conditional model, refused by any other.

    Raises CapabilityMissing and InvalidRequest.
    """
    if label is None and manifest.conditional:
        raise InvalidRequest(f"model {manifest.name} needs the label of its input: {class_list(manifest)}")
    if label is not None and not manifest.conditional:
        raise CapabilityMissing(f"model {manifest.name} takes no label of its input")
    return class_indices(manifest, label)


def class_indices(manifest: Manifest, label: LabelRequest) -> tuple[int, ...] | None:
    """Class names to indices. Raises InvalidRequest for an unknown class."""
    if label is None:
        return None
    if label == EVERY_CLASS:
        return tuple(range(len(manifest.classes)))
    indices = {name: index for index, name in enumerate(manifest.classes)}
    try:
        return tuple(indices[name] for name in ([label] if isinstance(label, str) else label))
    except KeyError:
        raise InvalidRequest(f"model {manifest.name} has the classes {class_list(manifest)}") from None


def class_list(manifest: Manifest) -> str:
    """The class names for an error message."""
    listed = ", ".join(manifest.classes[:MAX_NAMED_CLASSES])
    hidden = len(manifest.classes) > MAX_NAMED_CLASSES
    return f"{listed} and more, see /models/{manifest.name}" if hidden else listed


def _cycled(classes: tuple[int, ...], first: int, count: int) -> Labels:
    """Image i has class i modulo the number of classes, so that a slice has the labels it has in the whole."""
    return np.array(classes, dtype=np.int64)[np.arange(first, first + count) % len(classes)]


def draw(model: Model, slices: Sequence[Slice]) -> list[tuple[Rows, Labels | None]]:
    """The latents `(count, latent)` and labels `(count,)` of each slice, with one pass through the fitted prior."""
    labels = [source.labels(first, count) for source, first, count in slices]
    latents = {
        i: source.latents[first : first + count]
        for i, (source, first, count) in enumerate(slices)
        if isinstance(source, Given)
    }
    for prior in get_args(Prior.__value__):
        own = {
            i: (source, first, count)
            for i, (source, first, count) in enumerate(slices)
            if isinstance(source, Seeded) and source.prior == prior
        }
        if own:
            rows = seeded_noise([*own.values()])
            if prior == "fitted":
                (rows,) = model.run("prior", rows, concatenated([labels[i] for i in own]))
            latents |= zip(own, split(rows, [count for _, _, count in own.values()]), strict=True)
    return [(latents[i], labels[i]) for i in range(len(slices))]


def seeded_noise(slices: Sequence[tuple[Seeded, int, int]]) -> Rows:
    """The noise of slices with the same prior, concatenated: `(rows, latent)`.

    For the fitted prior `(rows, latent + 1)`: the last column, which no option changes, picks the component.
    """
    counts = [count for _, _, count in slices]
    temperature = [1.0 if source.temperature is None else source.temperature for source, _, _ in slices]
    below = [tail(source.truncation) for source, _, _ in slices]
    noise = normal(
        np.concatenate([raw_rows(each.seed, first, count, each.width, LATENT_STREAM) for each, first, count in slices]),
        np.repeat(temperature, counts)[:, None],
        np.repeat(below, counts)[:, None],
    )
    if slices[0][0].prior != "fitted":
        return noise
    words = [raw_rows(source.seed, first, count, 1, COMPONENT_STREAM) for source, first, count in slices]
    return np.concatenate([noise, normal(np.concatenate(words))], axis=1)


def generate(model: Model, drawn: Sequence[tuple[Rows, Labels | None]]) -> Rows:
    """The images `(rows, 1, H, W)` of all latents and labels in order, with one pass of the network."""
    latents = np.concatenate([rows for rows, _ in drawn])
    (images,) = model.run("generate", latents, concatenated([labels for _, labels in drawn]))
    return images


def concatenated(labels: Sequence[Labels | None]) -> Labels | None:
    """The labels of several slices as one array, None unless all slices have labels."""
    present = [each for each in labels if each is not None]
    return np.concatenate(present) if len(present) == len(labels) else None


def split(rows: NDArray[Scalar], counts: Sequence[int]) -> list[NDArray[Scalar]]:
    """Split the rows of a batch into slices of these lengths."""
    return [rows[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)]

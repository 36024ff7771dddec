"""What images are made of: noise and labels, drawn as a caller and a model's manifest say.

Knows manifests, not what computes; knows nothing of HTTP. A row of noise and its label are a pure function of
seed, index and choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.checkpoints.manifest import EVERY_CLASS, Manifest, Prior
from app.errors import InvalidRequest
from app.inference.latents import COMPONENT_STREAM, normal_rows, uniform_labels
from app.inference.runtime import Labels, Rows

# Classes that a refusal lists: a model may have hundreds.
CLASSES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Choices:
    """How a caller wants images drawn. What is None is as the model has it."""

    label: str | Sequence[str] | None = None  # a class, the classes in turn, or `balanced`: all classes in turn
    prior: Prior | None = None
    temperature: float | None = None
    truncation: float | None = None

    @property
    def classes(self) -> Sequence[str]:
        """The names asked for; none where a label is drawn, or all are asked for."""
        if self.label is None or self.label == EVERY_CLASS:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True)
class Draw:
    """Rows to make images of: noise `(n, noise)` for a fitted prior, else latents `(n, latent)`; their labels."""

    prior: Prior
    noise: Rows
    labels: Labels | None  # (n,), None where the model has none


def draw(manifest: Manifest, choices: Choices, seed: int, first: int, count: int) -> Draw:
    """Rows `first` to `first + count - 1` of a seed. Raises InvalidRequest for what the model does not have."""
    prior = prior_of(manifest, choices)
    check_controls(manifest, choices)
    labels = None
    if manifest.gives_labels(prior):
        labels = labels_of(manifest, choices.label, first, count)
        if labels is None:
            labels = uniform_labels(seed, first, count, len(manifest.classes))
    elif choices.label is not None:
        # Labels without condition are those of the fitted prior.
        with_prior = f" with the prior {prior}, only with fitted" if manifest.has_labels else ""
        raise InvalidRequest(f"model {manifest.name} has no labels{with_prior}")
    noise = normal_rows(
        seed, first, count, manifest.latent_dim, temperature=choices.temperature, truncation=choices.truncation
    )
    if prior == "fitted":
        component = normal_rows(seed, first, count, 1, stream=COMPONENT_STREAM)
        noise = np.concatenate([noise, component], axis=1)
    return Draw(prior, noise, labels)


def prior_of(manifest: Manifest, choices: Choices) -> Prior:
    """The prior asked for, else the model's default. Raises InvalidRequest."""
    if choices.prior is None:
        return manifest.priors[0]
    if choices.prior not in manifest.priors:
        raise InvalidRequest(f"model {manifest.name} has the prior {' and '.join(manifest.priors)} only")
    return choices.prior


def check_controls(manifest: Manifest, choices: Choices) -> None:
    """Raises InvalidRequest for a control that the model does not take, naming those it takes."""
    asked = {"temperature": choices.temperature, "truncation": choices.truncation}
    if any(value is not None and control not in manifest.sampling for control, value in asked.items()):
        takes = " and ".join(manifest.sampling) or "neither temperature nor truncation"
        raise InvalidRequest(f"model {manifest.name} takes {takes}")


def labels_of(manifest: Manifest, asked: str | Sequence[str] | None, first: int, count: int) -> Labels | None:
    """The labels of images `first` to `first + count - 1`: `(count,)`, None where nobody asked for any.

    Of several classes, image i is item i modulo their number: asking for a part gives that part of the whole.
    Raises InvalidRequest for a class that the model does not have.
    """
    if asked is None:
        return None
    if asked == EVERY_CLASS:
        wanted = np.arange(len(manifest.classes))
    else:
        wanted = class_numbers(manifest, (asked,) if isinstance(asked, str) else asked)
    return wanted[np.arange(first, first + count) % len(wanted)]


def given_labels(manifest: Manifest, asked: str | Sequence[str] | None, count: int) -> Labels | None:
    """The labels of what a caller gives the model, `(count,)`: needed where it is conditional, else refused.

    Raises InvalidRequest.
    """
    if manifest.conditional and asked is None:
        raise InvalidRequest(f"model {manifest.name} needs the label of what it is given: {class_list(manifest)}")
    if asked is not None and not manifest.conditional:
        raise InvalidRequest(f"model {manifest.name} takes no label of what it is given")
    return labels_of(manifest, asked, 0, count)


def class_numbers(manifest: Manifest, names: Sequence[str]) -> Labels:
    """Labels by the names of their classes: `(n,)`. Raises InvalidRequest for an unknown one."""
    numbers = {name: number for number, name in enumerate(manifest.classes)}
    try:
        return np.array([numbers[name] for name in names], dtype=np.int64)
    except KeyError:
        raise InvalidRequest(f"model {manifest.name} has the classes {class_list(manifest)}") from None


def class_names(manifest: Manifest, labels: Labels) -> list[str]:
    """The names of the classes of labels `(n,)`, in order."""
    return [manifest.classes[label] for label in labels.tolist()]


def class_list(manifest: Manifest) -> str:
    """The names of the classes, or of the first of many."""
    listed = ", ".join(manifest.classes[:CLASSES_NAMED])
    return listed if len(manifest.classes) <= CLASSES_NAMED else f"{listed} and more: /models/{manifest.name} lists all"

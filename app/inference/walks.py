"""Paths between two latents: which ends a caller asked for, and with which labels. Knows no HTTP."""

from dataclasses import dataclass, replace

import numpy as np

from app.checkpoints.manifest import Manifest, Prior
from app.errors import InvalidRequest
from app.inference.latents import Path
from app.inference.runtime import Labels, Rows
from app.inference.sampling import Choices, Draw, class_list, class_numbers, draw, prior_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller said of one end: a seed or a latent `(latent,)`, and its label where it has one of its own."""

    seed: int | None = None
    latent: Rows | None = None
    label: str | None = None
    drawn: bool = False  # the seed, by the server: asked again, the answer is another one


@dataclass(frozen=True, slots=True)
class End:
    """One end of a path: what was drawn for image 0 of its seed, or a latent that was given, as one row."""

    asked: Asked
    drawn: Draw

    @property
    def label(self) -> int | None:
        """The label that its image has; None where it has none."""
        return None if self.drawn.labels is None else int(self.drawn.labels[0])


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends, and the form of the path between them unless the caller asks for another."""

    start: End
    end: End
    path: Path

    @property
    def seeds(self) -> tuple[int | None, int | None]:
        """The seeds of both; None for a latent."""
        return self.start.asked.seed, self.end.asked.seed

    @property
    def prior(self) -> Prior | None:
        """What the ends that are seeds were drawn from; None where neither is one."""
        return next((end.drawn.prior for end in (self.start, self.end) if end.asked.seed is not None), None)

    def labels(self, conditional: bool, steps: int) -> list[int | None]:
        """The label of each image of the path: of all where the model is conditional, else of the ends only.

        Between two latents a decoder that knows no labels may make any class.
        """
        if conditional:
            return [self.start.label] * steps
        return [self.start.label, *[None] * (steps - 2), self.end.label]


def ends_of(manifest: Manifest, start: Asked, end: Asked, choices: Choices) -> Ends:
    """The ends asked for. `choices` hold for both, their label, too.

    A conditional model has one label along the path: the one asked for, else the one drawn for the first end that
    is a seed. With a fitted prior, each end that is a seed has a label, asked for or drawn. Raises InvalidRequest.
    """
    seeded = [asked for asked in (start, end) if asked.latent is None]
    if not seeded and (choices.prior, choices.temperature, choices.truncation) != (None, None, None):
        raise InvalidRequest("prior, temperature and truncation are of ends that are seeds")
    prior = prior_of(manifest, choices)
    if manifest.conditional:
        choices = replace(choices, label=one_label(manifest, start, end, choices))
    elif not seeded and choices.label is not None:
        raise InvalidRequest(f"the latents of model {manifest.name} have no labels")
    made = [end_of(manifest, asked, choices) for asked in (start, end)]
    return Ends(made[0], made[1], "lerp" if prior == "fitted" else "slerp")


def one_label(manifest: Manifest, start: Asked, end: Asked, choices: Choices) -> str:
    """The class along a path of a conditional model. Raises InvalidRequest where it cannot be known."""
    if start.label is not None or end.label is not None:
        raise InvalidRequest(f"model {manifest.name} has one label along the path: give label, not one an end")
    if isinstance(choices.label, str):
        return choices.label
    for asked in (start, end):
        if asked.seed is not None:
            labels = draw(manifest, choices, asked.seed, 0, 1).labels
            assert labels is not None
            return manifest.classes[int(labels[0])]
    raise InvalidRequest(
        f"model {manifest.name} needs the label of the images: give label, one of {class_list(manifest)}"
    )


def end_of(manifest: Manifest, asked: Asked, choices: Choices) -> End:
    """One end. Raises InvalidRequest for a label that the model does not have, or has no use for."""
    if asked.latent is not None:
        if asked.label is not None:
            raise InvalidRequest("an end that is a latent has no label of its own")
        labels: Labels | None = None
        if manifest.conditional and isinstance(choices.label, str):
            labels = class_numbers(manifest, [choices.label])
        return End(asked, Draw("normal", asked.latent[None], labels))
    assert asked.seed is not None
    if asked.label is not None:
        choices = replace(choices, label=asked.label)
    return End(asked, draw(manifest, choices, asked.seed, 0, 1))


def label_row(labels: list[int | None]) -> Labels | None:
    """The labels of a path's images as an array `(steps,)`, -1 for none; None where no image has one."""
    if all(label is None for label in labels):
        return None
    return np.array([-1 if label is None else label for label in labels], dtype=np.int64)

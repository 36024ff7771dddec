"""Paths through latents, and their two ends: seeds, latents of the caller, or uploads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from typing_extensions import TypeAliasType

from app.checkpoints.manifest import Manifest, Prior
from app.errors import InvalidRequest
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import (
    Given,
    SamplingOptions,
    Seeded,
    class_list,
    concatenated,
    draw,
    given,
    prior_of,
    seeded,
)

Path = TypeAliasType("Path", Literal["lerp", "slerp"])


@dataclass(frozen=True, slots=True)
class UploadEnd:
    """An end that is the latent of an image `(1, 1, H, W)` in [0, 1]."""

    image: Rows
    classes: tuple[int, ...] | None

    def labels(self, _first: int, _count: int) -> Labels | None:
        """`(1,)`, None if the model takes no labels."""
        return None if self.classes is None else np.array(self.classes, dtype=np.int64)


End = Seeded | Given | UploadEnd


def end_latents(model: Model, ends: Sequence[End]) -> list[Rows]:
    """The latent `(latent,)` of each end, with one pass through the encoder and one through the fitted prior."""
    latents: dict[int, Rows] = {}
    uploads = [(i, end) for i, end in enumerate(ends) if isinstance(end, UploadEnd)]
    if uploads:
        images = np.concatenate([end.image for _, end in uploads])
        labels = concatenated([end.labels(0, 1) for _, end in uploads])
        mean, _ = model.encode(images, labels)
        latents |= {i: row for (i, _), row in zip(uploads, mean, strict=True)}
    sources = [(i, end) for i, end in enumerate(ends) if not isinstance(end, UploadEnd)]
    if sources:
        drawn = draw(model, [(end, 0, 1) for _, end in sources])
        latents |= {i: rows[0] for (i, _), (rows, _) in zip(sources, drawn, strict=True)}
    return [latents[i] for i in range(len(ends))]


def make_ends(
    manifest: Manifest,
    options: SamplingOptions,
    end_labels: tuple[str | None, str | None],
    seeds: Sequence[int],
    latents: Sequence[list[float] | None],
) -> tuple[Seeded | Given, Seeded | Given]:
    """The ends for a model: each a latent or, where that is None, a seed.

    A conditional model has one label along the path: the requested one, else that of the first end that is a seed. With
    a fitted prior each end that is a seed has a label, requested or drawn. Raises InvalidRequest and CapabilityMissing
    for labels and options that do not fit the model.
    """
    if manifest.conditional:
        if end_labels != (None, None):
            raise InvalidRequest(f"model {manifest.name} has one label along the path: give label instead of two")
        if options.label is None:
            options = replace(options, label=_first_label(manifest, options, seeds, latents))
    elif None not in latents and options.label is not None:
        raise InvalidRequest(f"the latents of model {manifest.name} have no labels")

    def end(seed: int, latent: list[float] | None, own_label: str | None) -> Seeded | Given:
        if latent is None:
            return seeded(manifest, options if own_label is None else replace(options, label=own_label), seed)
        if own_label is not None:
            raise InvalidRequest("an end that is a latent has no label of its own")
        return given(manifest, [latent], options.label if manifest.conditional else None)

    start, stop = (end(*each) for each in zip(seeds, latents, end_labels, strict=True))
    return start, stop


def _first_label(
    manifest: Manifest, options: SamplingOptions, seeds: Sequence[int], latents: Sequence[list[float] | None]
) -> str:
    """The label drawn for the first end that is a seed."""
    for seed, latent in zip(seeds, latents, strict=True):
        if latent is None:
            labels = seeded(manifest, options, seed).labels(0, 1)
            assert labels is not None, "images of a conditional model have labels"
            return manifest.classes[int(labels[0])]
    raise InvalidRequest(f"model {manifest.name} needs a label: {class_list(manifest)}")


def labels_along(manifest: Manifest, ends: Sequence[End], steps: int) -> Labels | None:
    """The label of each image, `(steps,)`, None if none has one.

    Without a conditional model only the ends have labels: between two latents it may generate any class.
    """
    first, last = (-1 if (labels := end.labels(0, 1)) is None else int(labels[0]) for end in ends)
    if first < 0 and last < 0:
        return None
    if manifest.conditional:
        return np.full(steps, first, dtype=np.int64)
    return np.array([first, *[-1] * (steps - 2), last], dtype=np.int64)


def default_path(manifest: Manifest, prior: Prior | None = None) -> Path:
    """The line for latents of a fitted prior, which do not lie on a sphere."""
    return "lerp" if prior_of(manifest, prior) == "fitted" else "slerp"


def interpolate(start: Rows, end: Rows, steps: int, path: Path, rows: slice = slice(None)) -> Rows:
    """`rows` of the `steps` latents from `start` to `end`, `(latent,)` both: `(len(rows), latent)`.

    The first and the last latent are exactly the ends.

    `lerp` is the straight line. `slerp` follows the great circle of the sphere on which normal latents lie (K.
    Shoemake, 1985; T. White, "Sampling Generative Networks", 2016, arXiv:1609.04468). Between parallel or opposite
    latents, for which no great circle is defined, `slerp` is the straight line.
    """
    a, b = start.astype(np.float64), end.astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[rows, None]
    weights_a, weights_b = 1.0 - t, t
    if path == "slerp":
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else 1.0
        angle = np.arccos(cosine)
        if np.sin(angle) > 1e-6:
            weights_a = np.sin((1.0 - t) * angle) / np.sin(angle)
            weights_b = np.sin(t * angle) / np.sin(angle)
    latents = (weights_a * a + weights_b * b).astype(np.float32)
    latents[t[:, 0] == 0.0] = start
    latents[t[:, 0] == 1.0] = end
    return latents

"""`POST /score`: the logits of a discriminator for uploaded or generated images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, MULTIPART, Call, OperationRoute
from app.api.fields import Files, GeneratedBody, ModelName, NormalizeText, Query
from app.api.negotiation import JSON, NPZ
from app.api.responses import Answer, Warnings, describe_warnings, documented, json_with_list, to_json
from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import Prior
from app.errors import InvalidRequest
from app.images import encode
from app.inference.batching import Chunk, Job
from app.inference.inputs import Generated, Images, Uploaded, check_generator, find_generator, take
from app.inference.latents import draw_seed
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import (
    SamplingOptions,
    Seeded,
    class_indices,
    concatenated,
    input_classes,
    prior_of,
    seeded,
    split,
)

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, NPZ)
MEANING = (
    "The probability that the image is from the training data rather than from the generator that the discriminator "
    "was trained against. It does not say which digit the image shows or how legible it is, it is not calibrated, and "
    "it cannot be compared between models: a discriminator that the generator fools answers about 0.5 to everything."
)


class ScoreQuery(Query):
    """Options of uploads to score."""

    model: ModelName = None
    label: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="class of all images, or of each one separated by commas, required by a conditional model",
        examples=["3", "3,4"],
    )
    normalize: NormalizeText = True


class ScoreRequest(GeneratedBody):
    """Generated images to score."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"n": 4, "seed": 8}]})

    model: ModelName = Field(None, description="the model that scores; default: the first that can")


class ScoreForm(BaseModel):
    """A multipart form with images to score."""

    files: Files


class ScoreItem(BaseModel):
    """The score of an image."""

    index: int = Field(examples=[0])
    label: str | None = Field(description="class it was generated or scored as, else null", examples=["3"])
    logit: float = Field(examples=[1.54])
    probability: float = Field(description="sigmoid of the logit", examples=[0.82])
    warnings: Warnings


class ScoreAnswer(Answer):
    """The scores of a discriminator, with seed, prior and generator of the images, all null for uploads."""

    seed: int | None
    prior: Prior | None
    generator: str | None
    meaning: str
    scores: list[ScoreItem]


@dataclass(frozen=True, slots=True)
class ScorePart:
    """Scores of consecutive images."""

    logits: Rows  # (n,)
    probabilities: Rows  # (n,)
    labels: Labels | None  # (n,)
    items: bytes  # the JSON items, if the response is JSON


@dataclass(frozen=True, slots=True)
class ScoreJob(Job[ScorePart]):
    """Images to score."""

    operation = "score"

    model: Model
    images: Images
    rows: int
    media_type: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the labels; where both models have labels, they have the same classes."""
        if isinstance(self.images, Uploaded) or self.model.manifest.conditional:
            return self.model.manifest.classes
        return self.images.generator.manifest.classes

    @property
    def other_models(self) -> tuple[Model, ...]:
        """The generator of the images, if there is one."""
        return self.images.models

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[ScorePart]:
        """Take the images, discriminate, encode."""
        taken = take([(chunk.job.images, chunk.first, chunk.count) for chunk in chunks])
        labels = concatenated([each for _, each in taken])
        (logits,) = model.run("discriminate", np.concatenate([images for images, _ in taken]), labels)
        logits_by_chunk = split(logits, [chunk.count for chunk in chunks])
        return [
            chunk.job.part(chunk.first, rows, known)
            for chunk, rows, (_, known) in zip(chunks, logits_by_chunk, taken, strict=True)
        ]

    def part(self, offset: int, logits: Rows, labels: Labels | None) -> ScorePart:
        """The part that starts `offset` images into the response."""
        # Not vectorized, which rounds the last lanes of an array differently.
        probabilities = np.array([sigmoid(logit) for logit in logits.tolist()], dtype=np.float32)
        if self.media_type != JSON:
            return ScorePart(logits, probabilities, labels, b"")
        names = [None] * len(logits) if labels is None else [self.classes[label] for label in labels.tolist()]
        warnings = self.images.warnings_of(offset, len(logits))
        columns = zip(names, logits.tolist(), probabilities.tolist(), map(describe_warnings, warnings), strict=True)
        items = [
            {
                "index": self.images.first + offset + i,
                "label": name,
                "logit": logit,
                "probability": probability,
                "warnings": warnings,
            }
            for i, (name, logit, probability, warnings) in enumerate(columns)
        ]
        return ScorePart(logits, probabilities, labels, to_json(items)[1:-1].encode())

    def answer(self, parts: Sequence[ScorePart]) -> bytes:
        """The body in the media type of the response."""
        if self.media_type == JSON:
            fields = self.images.origin | {"meaning": MEANING}
            return json_with_list(self.model.provenance, fields, "scores", b",".join(part.items for part in parts))
        labels = [part.labels for part in parts if part.labels is not None]
        return encode.npz(
            logits=np.concatenate([part.logits for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            **({"labels": np.concatenate(labels)} if labels else {}),
        )


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


@router.post(
    "/score",
    operation_id="score",
    summary="Score images with a discriminator",
    response_model=ScoreAnswer,
    **documented(*MEDIA_TYPES, query=ScoreQuery, body=ScoreRequest, form=ScoreForm, image_body=True),
)
async def score(call: Call) -> Response:
    """The body is one image, a multipart form with up to 64 `files`, or JSON: images of a seed, made by a generator.

    A conditional model scores an image given its label. Uploads need a label; generated images have theirs, or need
    one if their generator has no labels.
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    body_type = call.media_type(JSON, MULTIPART, *IMAGE_TYPES)
    if body_type == JSON:
        return await score_generated(call, media_type)
    asked = call.read_query(ScoreQuery)
    names = None if asked.label is None else asked.label.split(",")

    def prepare(model: Model) -> tuple[int, ...] | None:
        model.require("discriminate")
        return input_classes(model.manifest, names)

    model, classes = call.engine.select(asked.model, prepare)
    images, warnings = await call.read_files(body_type, model.manifest.image, normalized=asked.normalize)
    labels = None
    if classes is not None:
        if len(classes) not in {1, len(images)}:
            raise InvalidRequest("label must be one class for all images, or one for each, separated by commas")
        labels = np.resize(np.array(classes, dtype=np.int64), len(images))
    job = ScoreJob(model, Uploaded(images, warnings, labels), len(images), media_type)
    return await call.answer(model, job, media_type, None)


async def score_generated(call: Call, media_type: str) -> Response:
    """Score the images that `/generate` gives for the same options."""
    asked = await call.read_json(ScoreRequest)
    seed = draw_seed() if asked.seed is None else asked.seed

    def prepare(model: Model) -> tuple[Model, Seeded]:
        model.require("discriminate")
        return find_generator(
            call.engine, asked.generator, model, lambda generator: source_for(model, generator, asked.options, seed)
        )

    model, (generator, source) = call.engine.select(asked.model, prepare)
    call.check_count(generator, asked.n, paged=True)
    job = ScoreJob(model, Generated(generator, source, asked.first), asked.n, media_type)
    return await call.answer(model, job, media_type, seed)


def source_for(scorer: Model, generator: Model, options: SamplingOptions, seed: int) -> Seeded:
    """The latents and labels of the images to score.

    Raises CapabilityMissing and InvalidRequest for a generator whose images or labels do not fit the scorer.
    """
    check_generator(generator, scorer, Symbol.IMAGE)
    manifest = generator.manifest
    if not scorer.manifest.conditional:
        return seeded(manifest, options, seed)
    if manifest.gives_labels(prior_of(manifest, options.prior)):
        if manifest.classes != scorer.manifest.classes:
            raise InvalidRequest(f"models {generator.name} and {scorer.name} have different classes")
        return seeded(manifest, options, seed)
    # The images have no labels of their own: score them as the class that the caller names.
    classes = class_indices(scorer.manifest, options.label)
    if classes is None:
        raise InvalidRequest(f"model {scorer.name} needs a label, and images of {generator.name} have none")
    return replace(seeded(manifest, replace(options, label=None), seed), classes=classes)

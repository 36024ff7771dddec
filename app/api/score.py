"""`POST /score`."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.api.answers import BODY_ERRORS, check_count, documented, json_answer, respond
from app.api.bodies import (
    IMAGE_TYPES,
    MULTIPART,
    read_json,
    read_upload,
    refuse_query,
    refuse_repeated_names,
    request_body,
    require_media_type,
)
from app.api.bodies import JSON as JSON_BODY
from app.api.deadlines import PARAMETER as TIMEOUT
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import JSON, NPZ
from app.api.requests import ScoreRequest, ScoreUploadQuery
from app.api.schemas import ScoreAnswer
from app.api.uploads import decoded, to_unit
from app.checkpoints.manifest import Manifest
from app.checkpoints.store import Model
from app.errors import InvalidRequest
from app.images import encode
from app.inference.engine import Engine, Scores
from app.inference.latents import draw_seed
from app.inference.runtime import Labels, Rows
from app.inference.sampling import class_names, draw, given_labels, labels_of, prior_of

router = APIRouter(tags=["images"], dependencies=[Depends(refuse_repeated_names)])

MAX_FILES = 64
MEANING = (
    "The probability this discriminator gives that an image came from its training data rather than from the "
    "generator it was trained against. It says nothing about which digit it is or how well it can be read, it is "
    "not calibrated, and it cannot be compared between models: a discriminator that was fooled to the end answers "
    "about 0.5 to everything."
)


@router.post(
    "/score",
    operation_id="score",
    summary="Ask a discriminator whether images look like its training data",
    response_model=ScoreAnswer,
    responses=documented(NPZ, errors=BODY_ERRORS),
    openapi_extra=request_body(json=ScoreRequest, files="files", many=True, plain=True) | TIMEOUT,
)
async def score(
    call: Annotated[Call, Depends(call_for(JSON, NPZ))],
    options: Annotated[ScoreUploadQuery, Query()],
) -> Response:
    """As the body itself: one image. As multipart: up to 64 in the field `files`.

    As JSON: images of a seed, made by a generator.

    Generated images are rounded to 8 bits first, so that they score as their PNGs do. A conditional model scores an
    image as one of its label: uploads need theirs, generated images have it, or need it where their model has none.
    """
    given = require_media_type(call.request, JSON_BODY, MULTIPART, *IMAGE_TYPES)
    if given == JSON_BODY:
        found = await score_generated(call)
    else:
        found = await score_uploads(call, options, given)
    call.metrics.images.labels(found.scores.provenance.model, "score").inc(len(found.scores.logits))
    return respond(written(found, call.form), call.form, found.scores.provenance, found.seed)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of images, and where the images came from."""

    scores: Scores
    labels: Labels | None = None
    classes: Manifest | None = None  # whose classes the labels are
    seed: int | None = None
    first: int = 0
    generator: str | None = None


async def score_uploads(call: Call, options: ScoreUploadQuery, given: str) -> Scored:
    """Scores of the files that a body of the media type `given` holds."""
    names = options.label.split(",") if options.label is not None else None
    model = call.engine.select(options.model, "discriminate", labelled=names is not None, classes=names or ())
    files = await read_upload(call.request, given, "files", min(MAX_FILES, call.settings.max_images))
    labels = labels_of_files(model, names, len(files))
    with call.engine.admit(len(files)):
        images = await decoded(call, files, model.manifest.image, normalized=options.normalize)
        return Scored(await scored(call, model, images, labels), labels, model.manifest)


async def score_generated(call: Call) -> Scored:
    """Scores of images that a generator makes as the JSON body says."""
    refuse_query(call.request)
    asked = await read_json(call.request, ScoreRequest)
    model = call.engine.select(asked.model, "discriminate", classes=asked.choices.classes)
    generator = generator_for(call.engine, model, asked)
    seed = draw_seed() if asked.seed is None else asked.seed
    check_count(asked.n, 1, generator.manifest.image.pixels, call.settings)
    with call.engine.admit(asked.n):
        images, labels = await generated_images(call, model, generator, asked, seed)
        scores = await scored(call, model, images, labels)
    # Only a conditional scorer or a generator has labels; where both have, they have the same classes.
    classes = (model if model.manifest.conditional else generator).manifest
    return Scored(scores, labels, classes, seed, asked.first, generator.name)


def written(found: Scored, form: str) -> bytes:
    """Scores in the form that the caller wants."""
    scores, labels = found.scores, found.labels
    if form == NPZ:
        labelled = {} if labels is None else {"labels": labels}
        return encode.npz(logits=scores.logits, probabilities=scores.probabilities, **labelled)
    named: list[str] | list[None] = [None] * len(scores.logits)
    if labels is not None and found.classes is not None:
        named = class_names(found.classes, labels)
    rows = zip(named, scores.logits.tolist(), scores.probabilities.tolist(), strict=True)
    fields = {
        "seed": found.seed,
        "generator": found.generator,
        "meaning": MEANING,
        "scores": [
            {"index": index, "label": name, "logit": logit, "probability": probability}
            for index, (name, logit, probability) in enumerate(rows, start=found.first)
        ],
    }
    return json_answer(scores.provenance, fields)


async def scored(call: Call, model: Model, images: Rows, labels: Labels | None) -> Scores:
    """What the model says of images whose rows were admitted."""
    known = labels if model.manifest.conditional else None
    return await while_connected(call.request, call.engine.score(model, images, call.deadline, known))


def labels_of_files(model: Model, names: list[str] | None, count: int) -> Labels | None:
    """The labels of uploads, `(count,)`: one for all or one each. Raises InvalidRequest for another number."""
    if names is not None and len(names) not in {1, count}:
        raise InvalidRequest("label is one class for all images, or one for each with commas between")
    return given_labels(model.manifest, names, count)


def generator_for(engine: Engine, scorer: Model, asked: ScoreRequest) -> Model:
    """The generator asked for; unset, the scoring model if it can, else the default one.

    Raises ModelNotFound, CapabilityMissing, and InvalidRequest where its images have another shape.
    """
    # A conditional scorer knows what to do with a label that the generator has no use for.
    labelled = (asked.label is not None and not scorer.manifest.conditional) or None
    own = asked.generator is None and "generate" in scorer.networks and not labelled
    generator = (
        scorer
        if own
        else engine.select(
            asked.generator, "generate", labelled=labelled, classes=asked.choices.classes if labelled else ()
        )
    )
    if generator.manifest.image.shape != scorer.manifest.image.shape:
        raise InvalidRequest(f"models {generator.name} and {scorer.name} have images of different shapes")
    return generator


async def generated_images(
    call: Call, scorer: Model, generator: Model, asked: ScoreRequest, seed: int
) -> tuple[Rows, Labels | None]:
    """The images that `/generate` gives for the same seed, as rows `(n, 1, height, width)`, and their labels.

    Where the generator has no labels but the scorer needs some, they are what the caller says the images shall be.
    Raises InvalidRequest where they cannot be known.
    """
    manifest, choices = generator.manifest, asked.choices
    labels = None
    if scorer.manifest.conditional and not manifest.gives_labels(prior_of(manifest, choices)):
        labels = labels_of(scorer.manifest, choices.label, asked.first, asked.n)
        if labels is None:
            raise InvalidRequest(
                f"model {scorer.name} needs labels and images of {generator.name} have none: give label"
            )
        choices = replace(choices, label=None)
    elif scorer.manifest.conditional and manifest.classes != scorer.manifest.classes:
        raise InvalidRequest(f"models {generator.name} and {scorer.name} have different classes")
    drawn = draw(manifest, choices, seed, asked.first, asked.n)
    made = await while_connected(call.request, call.engine.draw(generator, drawn, call.deadline))
    return to_unit(encode.to_uint8(made.images))[:, None], drawn.labels if labels is None else labels

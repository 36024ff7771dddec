"""`POST /score`."""

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
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import JSON, NPZ
from app.api.requests import ScoreRequest, ScoreUploadQuery
from app.api.schemas import ScoreAnswer
from app.api.uploads import read_images, to_unit
from app.checkpoints.store import Model
from app.errors import InvalidRequest
from app.images import encode
from app.inference.engine import Engine
from app.inference.latents import draw_seed, normal_rows
from app.inference.runtime import Rows

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
    openapi_extra=request_body(json=ScoreRequest, files="files", many=True, plain=True),
)
async def score(
    call: Annotated[Call, Depends(call_for(JSON, NPZ))],
    options: Annotated[ScoreUploadQuery, Query()],
) -> Response:
    """As the body itself: one image. As multipart: up to 64 in the field `files`.

    As JSON: images of a seed, made by a generator.

    Generated images are rounded to 8 bits first, so that they score as their PNGs do.
    """
    request, engine, settings = call.request, call.engine, call.settings
    seed, first, generator = None, 0, None
    given = require_media_type(request, JSON_BODY, MULTIPART, *IMAGE_TYPES)
    if given != JSON_BODY:
        model = engine.select(options.model, "discriminate")
        files = await read_upload(request, given, "files", min(MAX_FILES, settings.max_images))
        form = model.manifest.image
        images = await read_images(files, form, call.workers, settings, normalized=options.normalize)
    else:
        refuse_query(request)
        asked = await read_json(request, ScoreRequest)
        model = engine.select(asked.model, "discriminate")
        generator = generator_for(engine, model, asked.generator)
        seed, first = draw_seed() if asked.seed is None else asked.seed, asked.first
        images = await generated_images(call, generator, asked, seed)
    scores = await while_connected(request, engine.score(model, images))
    call.metrics.images.labels(model.name, "score").inc(len(images))
    if call.form == NPZ:
        content = encode.npz(logits=scores.logits, probabilities=scores.probabilities)
    else:
        pairs = zip(scores.logits.tolist(), scores.probabilities.tolist(), strict=True)
        fields = {
            "seed": seed,
            "generator": generator.name if generator else None,
            "meaning": MEANING,
            "scores": [
                {"index": index, "logit": logit, "probability": probability}
                for index, (logit, probability) in enumerate(pairs, start=first)
            ],
        }
        content = json_answer(scores.provenance, fields)
    return respond(content, call.form, scores.provenance, seed)


def generator_for(engine: Engine, scorer: Model, name: str | None) -> Model:
    """The generator asked for; unset, the scoring model if it can, else the default one.

    Raises ModelNotFound, CapabilityMissing, and InvalidRequest where its images have another shape.
    """
    own = name is None and "generate" in scorer.networks
    generator = scorer if own else engine.select(name, "generate")
    if generator.manifest.image.shape != scorer.manifest.image.shape:
        raise InvalidRequest(f"models {generator.name} and {scorer.name} have images of different shapes")
    return generator


async def generated_images(call: Call, generator: Model, asked: ScoreRequest, seed: int) -> Rows:
    """The images that `/generate` gives for the same seed, as rows `(n, 1, height, width)`."""
    check_count(asked.n, 1, generator.manifest.image.pixels, call.settings)
    latents = normal_rows(seed, asked.first, asked.n, generator.manifest.latent_dim)
    made = await while_connected(call.request, call.engine.generate(generator, latents))
    return to_unit(encode.to_uint8(made.images))[:, None]

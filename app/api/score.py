"""`POST /score`."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import BODY_ERRORS, check_count, documented, respond
from app.api.bodies import JSON as JSON_BODY
from app.api.bodies import (
    MULTIPART,
    read_files,
    read_json,
    refuse_query,
    refuse_repeated_names,
    request_body,
    require_media_type,
)
from app.api.dependencies import EngineDep, State, StateDep, while_connected
from app.api.negotiation import JSON, NPZ, accepts
from app.api.requests import ScoreRequest, ScoreUploadQuery
from app.api.schemas import ScoreAnswer, ScoreItem
from app.api.uploads import read_images, to_unit
from app.checkpoints.store import Model
from app.errors import InvalidRequest
from app.images import encode
from app.inference.engine import Engine, Rows
from app.inference.latents import draw_seed, normal_rows

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
    openapi_extra=request_body(json=ScoreRequest, files="files", many=True),
)
async def score(
    request: Request,
    engine: EngineDep,
    form: Annotated[str, Depends(accepts(JSON, NPZ))],
    options: Annotated[ScoreUploadQuery, Query()],
    state: StateDep,
) -> Response:
    """As multipart: up to 64 images in the field `files`. As JSON: images of a seed, made by a generator.

    Generated images are rounded to 8 bits first, so that they score as their PNGs do.
    """
    seed, first, generator = None, 0, None
    if require_media_type(request, JSON_BODY, MULTIPART) == MULTIPART:
        model = engine.select(options.model, "discriminate")
        files = await read_files(request, "files", min(MAX_FILES, state["settings"].max_images))
        images = await read_images(
            files,
            model.manifest.image,
            state["image_workers"],
            state["settings"],
            normalized=options.normalize,
        )
    else:
        refuse_query(request)
        asked = await read_json(request, ScoreRequest)
        model = engine.select(asked.model, "discriminate")
        generator = generator_for(engine, model, asked.generator)
        seed, first = draw_seed() if asked.seed is None else asked.seed, asked.first
        images = await generated_images(request, engine, generator, asked, seed, state)
    scores = await while_connected(request, engine.score(model, images))
    state["metrics"].images.labels(model.name, "score").inc(len(images))
    if form == NPZ:
        content = encode.npz(logits=scores.logits, probabilities=scores.probabilities)
    else:
        pairs = zip(scores.logits.tolist(), scores.probabilities.tolist(), strict=True)
        answer = ScoreAnswer(
            **asdict(scores.provenance),
            seed=seed,
            generator=generator.name if generator else None,
            meaning=MEANING,
            scores=[
                ScoreItem(index=index, logit=logit, probability=probability)
                for index, (logit, probability) in enumerate(pairs, start=first)
            ],
        )
        content = answer.model_dump_json().encode()
    return respond(content, form, scores.provenance, seed)


def generator_for(engine: Engine, scorer: Model, name: str | None) -> Model:
    """The generator asked for; unset, the scoring model if it can, else the default one.

    Raises ModelNotFound, CapabilityMissing, and InvalidRequest where its images have another shape.
    """
    own = name is None and "generate" in scorer.networks
    generator = scorer if own else engine.select(name, "generate")
    if generator.manifest.image.shape != scorer.manifest.image.shape:
        raise InvalidRequest(f"models {generator.name} and {scorer.name} have images of different shapes")
    return generator


async def generated_images(
    request: Request, engine: Engine, generator: Model, asked: ScoreRequest, seed: int, state: State
) -> Rows:
    """The images that `/generate` gives for the same seed, as rows `(n, 1, height, width)`."""
    check_count(asked.n, 1, generator.manifest.image.pixels, state["settings"])
    latents = normal_rows(seed, asked.first, asked.n, generator.manifest.latent_dim)
    made = await while_connected(request, engine.generate(generator, latents))
    return to_unit(encode.to_uint8(made.images))[:, None]

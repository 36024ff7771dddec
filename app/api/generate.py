"""`POST /generate`."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import BODY_ERRORS, archive, check_count, documented, images_json, json_answer, picture, respond
from app.api.bodies import JSON as JSON_BODY
from app.api.bodies import read_json, refuse_query, request_body, require_media_type
from app.api.deadlines import PARAMETER as TIMEOUT
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import JSON, NPZ, PNG
from app.api.requests import GenerateRequest
from app.api.schemas import GenerateAnswer
from app.api.shortcut import Operation
from app.images import encode
from app.inference.engine import latent_rows
from app.inference.latents import draw_seed
from app.inference.sampling import class_names, draw, given_labels

router = APIRouter(tags=["images"])
call_of = call_for(JSON, PNG, NPZ)


@router.post(
    "/generate",
    operation_id="generate",
    summary="Generate images from a seed or from latents",
    response_model=GenerateAnswer,
    responses=documented(PNG, NPZ, errors=BODY_ERRORS),
    openapi_extra=request_body(json=GenerateRequest) | TIMEOUT,
)
async def generate(call: Annotated[Call, Depends(call_of)]) -> Response:
    """Image i of a seed is the same bytes whatever `n` is; `first` starts at another index.

    JSON holds one PNG an image, with its label. `image/png` is one grid, row by row, ceil(sqrt n) columns, and holds
    no labels. `application/x-npz` holds `images` (uint8), `latents` (float32), `index` and, where the model has labels,
    `labels` (int64): label k is class k of those the model lists.
    """
    require_media_type(call.request, JSON_BODY)
    refuse_query(call.request)
    asked = await read_json(call.request, GenerateRequest)
    choices = asked.choices
    by_label = asked.label is not None or None
    model = call.engine.select(asked.model, "generate", labelled=by_label, classes=choices.classes)
    check_count(asked.count, asked.scale, model.manifest.image.pixels, call.settings)
    with call.engine.admit(asked.count):
        if asked.latents is None:
            seed = draw_seed() if asked.seed is None else asked.seed
            drawn = draw(model.manifest, choices, seed, asked.first, asked.count)
            prior, work = drawn.prior, call.engine.draw(model, drawn, call.deadline)
        else:
            latents = latent_rows(model, asked.latents)
            labels = given_labels(model.manifest, asked.label, asked.count)
            seed, prior, work = None, None, call.engine.generate(model, latents, call.deadline, labels)
        made = await while_connected(call.request, work)
    call.metrics.images.labels(model.name, "generate").inc(asked.count)
    images = encode.to_uint8(made.images)
    if call.form == JSON:
        names = None if made.labels is None else class_names(model.manifest, made.labels)
        encoded = await images_json(images, names, asked.first, asked.scale, call.workers)
        content = json_answer(made.provenance, {"seed": seed, "prior": prior}, encoded)
    elif call.form == PNG:
        content = await picture(images, PNG, asked.scale, call.workers)
    else:
        index = np.arange(asked.first, asked.first + asked.count, dtype=np.int64)
        labelled = {} if made.labels is None else {"labels": made.labels}
        content = await archive(call.workers, images=images, latents=made.latents, index=index, **labelled)
    return respond(content, call.form, made.provenance, seed)


async def answer(request: Request) -> Response:
    """What the route answers, without its way there. Raises what `generate` and its dependency raise."""
    return await generate(await call_of(request))


DIRECT = {("POST", "/generate"): Operation(router.routes[0], answer)}

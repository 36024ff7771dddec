"""`POST /generate`."""

from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import BODY_ERRORS, check_count, documented, image_items, off_loop, picture, respond
from app.api.bodies import json_body, request_body
from app.api.dependencies import EngineDep, StateDep, while_connected
from app.api.negotiation import JSON, NPZ, PNG, accepts
from app.api.requests import GenerateRequest
from app.api.schemas import GenerateAnswer
from app.images import encode
from app.inference.engine import latent_rows
from app.inference.latents import draw_seed, normal_rows

router = APIRouter(tags=["images"])


@router.post(
    "/generate",
    operation_id="generate",
    summary="Generate images from a seed or from latents",
    response_model=GenerateAnswer,
    responses=documented(PNG, NPZ, errors=BODY_ERRORS),
    openapi_extra=request_body(json=GenerateRequest),
)
async def generate(
    request: Request,
    engine: EngineDep,
    form: Annotated[str, Depends(accepts(JSON, PNG, NPZ))],
    asked: Annotated[GenerateRequest, Depends(json_body(GenerateRequest))],
    state: StateDep,
) -> Response:
    """Image i of a seed is the same bytes whatever `n` is; `first` starts at another index.

    JSON holds one PNG an image. `image/png` is one grid, row by row, ceil(sqrt n) columns.
    `application/x-npz` holds `images` (uint8), `latents` (float32) and `index`.
    """
    workers = state["image_workers"]
    model = engine.select(asked.model, "generate")
    check_count(asked.count, asked.scale, model.manifest.image.pixels, state["settings"])
    if asked.latents is None:
        seed = draw_seed() if asked.seed is None else asked.seed
        latents = normal_rows(seed, asked.first, asked.count, model.manifest.latent_dim)
    else:
        seed, latents = None, latent_rows(model, asked.latents)
    made = await while_connected(request, engine.generate(model, latents))
    state["metrics"].images.labels(model.name, "generate").inc(asked.count)
    images = encode.to_uint8(made.images)
    if form == JSON:
        answer = GenerateAnswer(
            **asdict(made.provenance),
            seed=seed,
            images=await image_items(images, asked.first, asked.scale, workers),
        )
        content = answer.model_dump_json().encode()
    elif form == PNG:
        content = await picture(images, PNG, asked.scale, workers)
    else:
        index = np.arange(asked.first, asked.first + asked.count, dtype=np.int64)
        content = await off_loop(
            lambda: encode.npz(images=images, latents=made.latents, index=index), images.size, workers
        )
    return respond(content, form, made.provenance, seed)

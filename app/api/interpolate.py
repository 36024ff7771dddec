"""`GET /interpolate` and `POST /interpolate`."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.api.answers import (
    BODY_ERRORS,
    COMMON_ERRORS,
    check_count,
    documented,
    images_json,
    json_answer,
    off_loop,
    picture,
    respond,
)
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
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import APNG, JSON, NPZ, PNG
from app.api.requests import InterpolateQuery, InterpolateRequest, InterpolateUploadQuery, PathName
from app.api.schemas import InterpolateAnswer
from app.api.uploads import read_images
from app.checkpoints.store import Model
from app.errors import InvalidRequest
from app.images import encode
from app.inference.engine import Provenance, latent_rows
from app.inference.latents import draw_seed, interpolate, normal_rows
from app.inference.runtime import Rows

router = APIRouter(tags=["images"], dependencies=[Depends(refuse_repeated_names)])

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FORMS = (JSON, PNG, APNG, NPZ)
CallDep = Annotated[Call, Depends(call_for(*FORMS))]


@dataclass(frozen=True)
class End:
    """One end of a path: a latent `(latent,)`, and the seed it is image 0 of, if it is one."""

    latent: Rows
    seed: int | None
    drawn: bool = False  # by the server: asked again, the answer is another one


@router.get(
    "/interpolate",
    operation_id="interpolate",
    summary="Walk from one latent to another",
    response_model=InterpolateAnswer,
    responses=documented(*FORMS, errors=COMMON_ERRORS, seeded=True)
    | {304: {"description": "the caller's copy is current"}},
)
async def interpolate_query(call: CallDep, asked: Annotated[InterpolateQuery, Query()]) -> Response:
    """The ends are image 0 of `/generate` with their seeds. `image/png` is a strip, `image/apng` an animation.

    With both ends given, the answer carries a strong ETag and `If-None-Match` is honoured.
    """
    model = call.engine.select(asked.model, "generate")
    check_count(asked.steps, asked.scale, model.manifest.image.pixels, call.settings)
    start = end_of(model, asked.from_seed, numbers(asked.from_latent), "from")
    end = end_of(model, asked.to_seed, numbers(asked.to_latent), "to")
    headers = {}
    if not (start.drawn or end.drawn):
        headers["ETag"] = etag = entity_tag(call.engine.provenance(model), call.form, asked, start, end)
        if matches(",".join(call.request.headers.getlist("if-none-match")), etag):
            return Response(status_code=304, headers={"ETag": etag, "Vary": "Accept"})
    walk = Walk(model, start, end, asked.steps, asked.path, asked.scale)
    return await walked(call, walk, headers)


@router.post(
    "/interpolate",
    operation_id="interpolate_between",
    summary="Walk between two latents, or between two uploaded images",
    response_model=InterpolateAnswer,
    responses=documented(*FORMS, errors=BODY_ERRORS),
    openapi_extra=request_body(json=InterpolateRequest, files="files", many=True),
)
async def interpolate_body(call: CallDep, options: Annotated[InterpolateUploadQuery, Query()]) -> Response:
    """As JSON, between two ends, each a seed or a latent.

    As multipart, between two files in the field `files`, from and to, for a model that encodes; their
    options are query parameters.
    """
    request, engine, settings = call.request, call.engine, call.settings
    if require_media_type(request, JSON_BODY, MULTIPART) == MULTIPART:
        model = engine.select(options.model, "encode", "generate")
        check_count(options.steps, options.scale, model.manifest.image.pixels, settings)
        files = await read_files(request, "files", 2)
        if len(files) != 2:
            raise InvalidRequest("two files are needed in the field 'files': from and to")
        form = model.manifest.image
        images = await read_images(files, form, call.workers, settings, normalized=options.normalize)
        means = await while_connected(request, engine.encode(model, images))
        walk = Walk(model, End(means[0], None), End(means[1], None), options.steps, options.path, options.scale)
    else:
        refuse_query(request)
        asked = await read_json(request, InterpolateRequest)
        model = engine.select(asked.model, "generate")
        check_count(asked.steps, asked.scale, model.manifest.image.pixels, settings)
        start = end_of(model, asked.from_seed, asked.from_latent, "from")
        end = end_of(model, asked.to_seed, asked.to_latent, "to")
        walk = Walk(model, start, end, asked.steps, asked.path, asked.scale)
    return await walked(call, walk)


@dataclass(frozen=True)
class Walk:
    """What is asked, whichever way it was asked."""

    model: Model
    start: End
    end: End
    steps: int
    path: PathName
    scale: int


async def walked(call: Call, walk: Walk, headers: dict[str, str] | None = None) -> Response:
    """Compute the walk and answer in the form asked for."""
    form, workers = call.form, call.workers
    latents = interpolate(walk.start.latent, walk.end.latent, walk.steps, walk.path)
    made = await while_connected(call.request, call.engine.generate(walk.model, latents))
    call.metrics.images.labels(walk.model.name, "interpolate").inc(walk.steps)
    images = encode.to_uint8(made.images)
    if form == JSON:
        seeds = {"seed": walk.start.seed, "from_seed": walk.start.seed, "to_seed": walk.end.seed}
        encoded = await images_json(images, 0, walk.scale, workers)
        content = json_answer(made.provenance, seeds | {"path": walk.path}, encoded)
    elif form == NPZ:
        content = await off_loop(lambda: encode.npz(images=images, latents=made.latents), images.size, workers)
    else:
        content = await picture(images, form, walk.scale, workers, columns=walk.steps)
    ends = {"X-From-Seed": walk.start.seed, "X-To-Seed": walk.end.seed}
    named = {name: str(seed) for name, seed in ends.items() if seed is not None}
    return respond(content, form, made.provenance, walk.start.seed, named | (headers or {}))


def end_of(model: Model, seed: int | None, latent: list[float] | None, side: str) -> End:
    """An end from what the caller gave, a drawn seed where it gave neither. Raises InvalidRequest for both."""
    if seed is not None and latent is not None:
        raise InvalidRequest(f"give {side}_seed or {side}_latent, not both")
    if latent is not None:
        return End(latent_rows(model, [latent])[0], None)
    drawn = seed is None
    used = draw_seed() if seed is None else seed
    return End(normal_rows(used, 0, 1, model.manifest.latent_dim)[0], used, drawn)


def numbers(text: str | None) -> list[float] | None:
    """`1,-0.5,2e-3` to numbers. Raises InvalidRequest for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(NUMBER.fullmatch(part) for part in parts):
        raise InvalidRequest("a latent in a query is numbers with commas between them")
    return [float(part) for part in parts]


def entity_tag(provenance: Provenance, form: str, asked: InterpolateQuery, start: End, end: End) -> str:
    """A strong ETag: a hash of everything the bytes of the answer depend on."""
    facts = (provenance, form, start.seed, end.seed, asked.steps, asked.path, asked.scale)
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.stack([start.latent, end.latent]).tobytes())
    return f'"{digest.hexdigest()[:32]}"'


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names the entity (RFC 9110, section 13.1.2: weakly compared)."""
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in named or etag in named

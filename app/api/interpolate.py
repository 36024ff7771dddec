"""`GET /interpolate` and `POST /interpolate`."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.api.answers import (
    BODY_ERRORS,
    COMMON_ERRORS,
    archive,
    check_count,
    documented,
    images_json,
    json_answer,
    origin_headers,
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
from app.api.deadlines import PARAMETER as TIMEOUT
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import APNG, JSON, NPZ, PNG
from app.api.requests import NUMBER, InterpolateQuery, InterpolateRequest, InterpolateUploadQuery
from app.api.schemas import InterpolateAnswer
from app.api.uploads import decoded
from app.checkpoints.store import Model
from app.errors import InvalidRequest
from app.images import encode
from app.inference.engine import Images, Provenance, latent_rows
from app.inference.latents import Path, draw_seed, interpolate
from app.inference.sampling import Choices, given_labels
from app.inference.walks import Asked, Ends, ends_of, label_row

router = APIRouter(tags=["images"], dependencies=[Depends(refuse_repeated_names)])

FORMS = (JSON, PNG, APNG, NPZ)
# The headers that name the seeds of a walk's ends.
ENDS = ("X-From-Seed", "X-To-Seed")
CallDep = Annotated[Call, Depends(call_for(*FORMS))]


@router.get(
    "/interpolate",
    operation_id="interpolate",
    summary="Walk from one latent to another",
    response_model=InterpolateAnswer,
    responses=documented(*FORMS, errors=COMMON_ERRORS, headers=(*ENDS, "ETag"))
    | {304: {"description": "the caller's copy is current"}},
    openapi_extra=TIMEOUT,
)
async def interpolate_query(call: CallDep, asked: Annotated[InterpolateQuery, Query()]) -> Response:
    """The ends are image 0 of `/generate` with their seeds, labels and controls.

    `image/png` is a strip, `image/apng` an animation. With both ends given, the answer carries a strong ETag and
    `If-None-Match` is honoured.
    """
    walk = walk_of(call, asked, numbers(asked.from_latent), numbers(asked.to_latent))
    headers = {}
    if not (walk.ends.start.asked.drawn or walk.ends.end.asked.drawn):
        headers["ETag"] = etag = entity_tag(call.engine.provenance(walk.model), call.form, walk)
        if matches(",".join(call.request.headers.getlist("if-none-match")), etag):
            origin = call.engine.provenance(walk.model)
            seeds = named_ends(walk)
            return Response(status_code=304, headers=origin_headers(origin, walk.ends.seeds[0]) | seeds | headers)
    with call.engine.admit(walk.steps):
        made = await while_connected(call.request, images_along(call, walk))
    return await answered(call, walk, made, headers)


@router.post(
    "/interpolate",
    operation_id="interpolate_between",
    summary="Walk between two latents, or between two uploaded images",
    response_model=InterpolateAnswer,
    responses=documented(*FORMS, errors=BODY_ERRORS, headers=ENDS),
    openapi_extra=request_body(json=InterpolateRequest, files="files", many=True) | TIMEOUT,
)
async def interpolate_body(call: CallDep, options: Annotated[InterpolateUploadQuery, Query()]) -> Response:
    """As JSON, between two ends, each a seed or a latent.

    As multipart, between two files in the field `files`, from and to, for a model that encodes; their
    options are query parameters.
    """
    request = call.request
    if require_media_type(request, JSON_BODY, MULTIPART) == MULTIPART:
        return await walked_between_uploads(call, options)
    refuse_query(request)
    asked = await read_json(request, InterpolateRequest)
    walk = walk_of(call, asked, asked.from_latent, asked.to_latent)
    with call.engine.admit(walk.steps):
        made = await while_connected(request, images_along(call, walk))
    return await answered(call, walk, made)


@dataclass(frozen=True)
class Walk:
    """What is asked, whichever way it was asked."""

    model: Model
    ends: Ends
    steps: int
    path: Path
    scale: int

    @property
    def labels(self) -> list[int | None]:
        """The label of each image."""
        return self.ends.labels(self.model.manifest.conditional, self.steps)


def walk_of(
    call: Call,
    asked: InterpolateQuery | InterpolateRequest,
    from_latent: list[float] | None,
    to_latent: list[float] | None,
) -> Walk:
    """The walk between two seeds or latents. Raises InvalidRequest, ModelNotFound, CapabilityMissing."""
    model = call.engine.select(asked.model, "generate", labelled=bool(asked.classes) or None, classes=asked.classes)
    check_count(asked.steps, asked.scale, model.manifest.image.pixels, call.settings)
    start = asked_end(model, asked.from_seed, from_latent, asked.from_label, "from")
    end = asked_end(model, asked.to_seed, to_latent, asked.to_label, "to")
    choices = Choices(asked.label, asked.prior, asked.temperature, asked.truncation)
    ends = ends_of(model.manifest, start, end, choices)
    return Walk(model, ends, asked.steps, asked.path or ends.path, asked.scale)


async def walked_between_uploads(call: Call, asked: InterpolateUploadQuery) -> Response:
    """The walk between the posterior means of two files. Raises InvalidRequest and InvalidImage, too."""
    request = call.request
    classes = () if asked.label is None else (asked.label,)
    model = call.engine.select(asked.model, "encode", "generate", labelled=bool(classes), classes=classes)
    check_count(asked.steps, asked.scale, model.manifest.image.pixels, call.settings)
    labels = given_labels(model.manifest, asked.label, 2)
    files = await read_files(request, "files", 2)
    if len(files) != 2:
        raise InvalidRequest("two files are needed in the field 'files': from and to")
    with call.engine.admit(asked.steps):
        images = await decoded(call, files, model.manifest.image, normalized=asked.normalize)
        means = await while_connected(request, call.engine.encode(model, images, call.deadline, labels))
        ends = ends_of(model.manifest, Asked(latent=means[0]), Asked(latent=means[1]), Choices(asked.label))
        walk = Walk(model, ends, asked.steps, asked.path or ends.path, asked.scale)
        made = await while_connected(request, images_along(call, walk))
    return await answered(call, walk, made)


async def answered(call: Call, walk: Walk, made: Images, headers: dict[str, str] | None = None) -> Response:
    """A walk in the form asked for."""
    form, workers, seeds = call.form, call.workers, walk.ends.seeds
    call.metrics.images.labels(walk.model.name, "interpolate").inc(walk.steps)
    images, labels = encode.to_uint8(made.images), walk.labels
    if form == JSON:
        fields = {"seed": seeds[0], "from_seed": seeds[0], "to_seed": seeds[1]}
        classes = walk.model.manifest.classes
        names = [None if label is None else classes[label] for label in labels]
        encoded = await images_json(images, names, 0, walk.scale, workers)
        content = json_answer(made.provenance, fields | {"prior": walk.ends.prior, "path": walk.path}, encoded)
    elif form == NPZ:
        rows = label_row(labels)
        labelled = {} if rows is None else {"labels": rows}
        content = await archive(workers, images=images, latents=made.latents, **labelled)
    else:
        content = await picture(images, form, walk.scale, workers, columns=walk.steps)
    return respond(content, form, made.provenance, seeds[0], named_ends(walk) | (headers or {}))


def named_ends(walk: Walk) -> dict[str, str]:
    """The headers that name the seeds of the ends which are of seeds."""
    ends = zip(ENDS, walk.ends.seeds, strict=True)
    return {name: str(seed) for name, seed in ends if seed is not None}


async def images_along(call: Call, walk: Walk) -> Images:
    """The images of a walk: its ends' latents, the latents between them, and what the model makes of them."""
    start, end = [
        await call.engine.latents(walk.model, end.drawn, call.deadline) for end in (walk.ends.start, walk.ends.end)
    ]
    latents = interpolate(start[0], end[0], walk.steps, walk.path)
    labels = label_row(walk.labels) if walk.model.manifest.conditional else None
    return await call.engine.generate(walk.model, latents, call.deadline, labels)


def asked_end(model: Model, seed: int | None, latent: list[float] | None, label: str | None, side: str) -> Asked:
    """An end as the caller gave it, with a drawn seed where there is none. Raises InvalidRequest for two sources."""
    if seed is not None and latent is not None:
        raise InvalidRequest(f"give {side}_seed or {side}_latent, not both")
    if latent is not None:
        return Asked(latent=latent_rows(model, [latent])[0], label=label)
    return Asked(seed=draw_seed() if seed is None else seed, label=label, drawn=seed is None)


def numbers(text: str | None) -> list[float] | None:
    """`1,-0.5,2e-3` to numbers. Raises InvalidRequest for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(NUMBER.fullmatch(part) for part in parts):
        raise InvalidRequest("a latent in a query is numbers with commas between them")
    return [float(part) for part in parts]


def entity_tag(provenance: Provenance, form: str, walk: Walk) -> str:
    """A strong ETag: a hash of everything the bytes of the answer depend on, known before any of it is computed."""
    facts = (provenance, form, walk.ends.seeds, walk.labels, walk.ends.prior, walk.steps, walk.path, walk.scale)
    digest = hashlib.sha256(repr(facts).encode())
    for end in (walk.ends.start, walk.ends.end):
        digest.update(end.drawn.noise.tobytes())
    return f'"{digest.hexdigest()[:32]}"'


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names the entity (RFC 9110, section 13.1.2: weakly compared)."""
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in named or etag in named

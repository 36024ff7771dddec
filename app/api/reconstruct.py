"""`POST /reconstruct`."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import (
    BODY_ERRORS,
    archive,
    base64_png,
    check_count,
    documented,
    encoding_ns,
    json_answer,
    off_loop,
    picture,
    respond,
)
from app.api.bodies import (
    IMAGE_TYPES,
    MULTIPART,
    read_query,
    read_upload,
    refuse_repeated_names,
    request_body,
    require_media_type,
)
from app.api.deadlines import PARAMETER as TIMEOUT
from app.api.dependencies import Call, call_for, while_connected
from app.api.negotiation import JSON, NPZ, PNG
from app.api.requests import ReconstructQuery
from app.api.schemas import ReconstructAnswer
from app.api.shortcut import Operation
from app.api.uploads import decoded
from app.images import encode
from app.inference.engine import Reconstruction
from app.inference.sampling import given_labels

router = APIRouter(tags=["images"], dependencies=[Depends(refuse_repeated_names)])
call_of = call_for(JSON, PNG, NPZ)


@router.post(
    "/reconstruct",
    operation_id="reconstruct",
    summary="Encode an uploaded image and decode it again",
    response_model=ReconstructAnswer,
    responses=documented(PNG, NPZ, errors=BODY_ERRORS),
    openapi_extra=request_body(files="file", plain=True) | TIMEOUT,
)
async def reconstruct(
    call: Annotated[Call, Depends(call_of)],
    asked: Annotated[ReconstructQuery, Query()],
) -> Response:
    """Any PNG or JPEG of a digit: dark on light or light on dark, a drawing or a photo.

    The file is the body itself, or the field `file` of a multipart form. `input` is the image as the model saw
    it. `image/png` is input and reconstruction side by side; `application/x-npz` holds both (uint8) with `mean`
    and `log_variance` (float32). A conditional model needs the `label` of the image.
    """
    request, settings = call.request, call.settings
    given = require_media_type(request, MULTIPART, *IMAGE_TYPES)
    classes = () if asked.label is None else (asked.label,)
    model = call.engine.select(asked.model, "encode", "decode", labelled=bool(classes), classes=classes)
    labels = given_labels(model.manifest, asked.label, 1)
    check_count(2, asked.scale, model.manifest.image.pixels, settings)
    files = await read_upload(request, given, "file", 1)
    with call.engine.admit(1):
        rows = await decoded(call, files, model.manifest.image, normalized=asked.normalize)
        work = call.engine.reconstruct(model, rows[0], asked.seed, call.deadline, labels)
        result = await while_connected(request, work)
    call.metrics.images.labels(model.name, "reconstruct").inc()
    content = await written(result, call, asked)
    return respond(content, call.form, result.provenance, asked.seed)


async def written(result: Reconstruction, call: Call, asked: ReconstructQuery) -> bytes:
    """A reconstruction in the form that the caller wants."""
    scale = asked.scale
    pair = encode.to_uint8(np.stack([result.image, result.reconstruction]))
    if call.form == PNG:
        return await picture(pair, PNG, scale, call.workers, columns=2)
    if call.form == NPZ:
        arrays = {"mean": result.mean, "log_variance": result.log_variance}
        return await archive(call.workers, input=pair[0], reconstruction=pair[1], **arrays)
    first, second = await off_loop(
        lambda: [base64_png(image, scale).decode() for image in pair], encoding_ns(pair, scale), call.workers
    )
    fields = {
        "seed": asked.seed,
        "label": asked.label,
        "input": {"png": first},
        "reconstruction": {"png": second},
        "latent": {"mean": result.mean.tolist(), "log_variance": result.log_variance.tolist()},
        "errors": {"bce": result.bce, "mse": result.mse, "kl": result.kl},
    }
    return json_answer(result.provenance, fields)


async def answer(request: Request) -> Response:
    """What the route answers, without its way there. Raises what `reconstruct` and its dependencies raise."""
    await refuse_repeated_names(request)
    call = await call_of(request)
    return await reconstruct(call, read_query(request, ReconstructQuery))


DIRECT = {("POST", "/reconstruct"): Operation(router.routes[0], answer)}

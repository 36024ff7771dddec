"""`POST /normalize`: an uploaded image in the form that a model takes."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, MULTIPART, Call, OperationRoute, name_origin
from app.api.fields import ModelName, NormalizeText, Query, ScaleText, Upload
from app.api.negotiation import JSON, PNG
from app.api.rendering import base64_png
from app.api.responses import Answer, Png, Warnings, describe_warnings, documented, json_content
from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.errors import CapabilityMissing
from app.images import encode
from app.images.shapes import WarningCode
from app.inference.model import Model
from app.inference.runtime import Rows

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG)
TAKE_IMAGES = {name for name, row in CAPABILITIES.items() if {Symbol.IMAGE, Symbol.INPUT_IMAGE} & {*row.inputs}}


class NormalizeQuery(Query):
    """Options of an upload to normalize."""

    model: ModelName = None
    normalize: NormalizeText = True
    scale: ScaleText = 1


class NormalizeForm(BaseModel):
    """A multipart form with an upload to normalize."""

    file: Upload


class NormalizeAnswer(Answer):
    """An upload as the model would see it."""

    input: Png
    warnings: Warnings


@router.post(
    "/normalize",
    operation_id="normalize",
    summary="Bring an uploaded image to the form that a model takes",
    response_model=NormalizeAnswer,
    **documented(*MEDIA_TYPES, query=NormalizeQuery, form=NormalizeForm, image_body=True),
)
async def normalize(call: Call) -> Response:
    """Any PNG or JPEG of a digit: dark on light or light on dark, a drawing or a photo.

    No network is run. `warnings` says whether a frame, or several digits side by side, were detected. At scale 1,
    the image sent on with `normalize=false` gives the same results as the upload, with every model that takes images of
    this form.
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    body_type = call.media_type(MULTIPART, *IMAGE_TYPES)
    asked = call.read_query(NormalizeQuery)
    model, _ = call.engine.select(asked.model, require_images)
    call.check_count(model, 1, asked.scale)
    (image,), (warnings,) = await call.read_images(
        body_type, "file", 1, model.manifest.upload_form, normalized=asked.normalize
    )
    content = await asyncio.to_thread(render, model, image[0], asked.scale, warnings, media_type)
    return name_origin(Response(content, media_type=media_type), model.provenance, None)


def render(model: Model, image: Rows, scale: int, warnings: list[WarningCode], media_type: str) -> bytes:
    """The response for `image` (H, W)."""
    if media_type == PNG:
        return encode.png(encode.to_uint8(image), scale=scale)
    png = base64_png(encode.to_uint8(image), scale).decode()
    return json_content(model.provenance, {"input": {"png": png}, "warnings": describe_warnings(warnings)})


def require_images(model: Model) -> None:
    """Raises CapabilityMissing for a model that takes no images."""
    if not TAKE_IMAGES & {*model.manifest.capabilities}:
        raise CapabilityMissing(f"model {model.name} takes no images")

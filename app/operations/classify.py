"""`POST /classify`: the probabilities of the classes of uploaded images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, MULTIPART, Call, OperationRoute
from app.api.fields import Files, ModelName, NormalizeText, Query
from app.api.negotiation import JSON, NPZ
from app.api.responses import Answer, Warnings, describe_warnings, documented, json_content
from app.images import encode
from app.images.shapes import WarningCode
from app.inference.batching import Chunk, Job
from app.inference.model import Model
from app.inference.runtime import Rows
from app.inference.sampling import split

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, NPZ)


class ClassifyQuery(Query):
    """Options of uploads to classify."""

    model: ModelName = None
    normalize: NormalizeText = True


class ClassifyForm(BaseModel):
    """A multipart form with images to classify."""

    files: Files


class ClassifyItem(BaseModel):
    """The classes of an image."""

    index: int = Field(examples=[0])
    label: str = Field(description="the most probable class", examples=["3"])
    probabilities: dict[str, float] = Field(description="by class, with the sum 1", examples=[{"3": 0.98, "8": 0.02}])
    warnings: Warnings


class ClassifyAnswer(Answer):
    """The classes of images, in order."""

    results: list[ClassifyItem]


@dataclass(frozen=True, slots=True)
class ClassifyJob(Job[Rows]):
    """Images `(n, 1, H, W)` in [0, 1]."""

    operation = "classify"

    model: Model
    images: Rows
    warnings: list[list[WarningCode]]  # of each image
    rows: int
    media_type: str

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[Rows]:
        """The probabilities `(count, classes)` of each chunk."""
        images = [chunk.job.images[chunk.first : chunk.first + chunk.count] for chunk in chunks]
        (probabilities,) = model.run("classify", np.concatenate(images))
        return split(probabilities, [chunk.count for chunk in chunks])

    def answer(self, parts: Sequence[Rows]) -> bytes:
        """The body in the media type of the response."""
        probabilities = np.concatenate(parts)
        labels = probabilities.argmax(axis=1)
        if self.media_type == NPZ:
            return encode.npz(probabilities=probabilities, labels=labels)
        classes = self.model.manifest.classes
        results = [
            {
                "index": i,
                "label": classes[label],
                "probabilities": dict(zip(classes, row, strict=True)),
                "warnings": describe_warnings(warnings),
            }
            for i, (label, row, warnings) in enumerate(
                zip(labels.tolist(), probabilities.tolist(), self.warnings, strict=True)
            )
        ]
        return json_content(self.model.provenance, {"results": results})


@router.post(
    "/classify",
    operation_id="classify",
    summary="Classify images",
    response_model=ClassifyAnswer,
    **documented(*MEDIA_TYPES, query=ClassifyQuery, form=ClassifyForm, image_body=True),
)
async def classify(call: Call) -> Response:
    """The body is one image, or a multipart form with up to 64 `files`.

    `application/x-npz` holds `probabilities` (float32, a row for each image and a column for each class) and `labels`
    (int64 class indices).
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    body_type = call.media_type(MULTIPART, *IMAGE_TYPES)
    asked = call.read_query(ClassifyQuery)
    model, _ = call.engine.select(asked.model, lambda model: model.require("classify"))
    images, warnings = await call.read_files(body_type, model.manifest.upload_form, normalized=asked.normalize)
    return await call.answer(model, ClassifyJob(model, images, warnings, len(images), media_type), media_type, None)

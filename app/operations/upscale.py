"""`POST /upscale`: small images to larger ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, MULTIPART, Call, OperationRoute
from app.api.fields import Files, GeneratedBody, IntegerText, ModelName, NormalizeText, Query, Scale, ScaleText
from app.api.negotiation import JSON, NPZ, PNG
from app.api.rendering import ImageRenderer, RenderedImages
from app.api.responses import Answer, ImageItem, Warnings, describe_warnings, documented
from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import Prior
from app.errors import CapabilityMissing, InvalidRequest
from app.images import encode
from app.images.encode import Pixels
from app.images.resize import enlarge
from app.inference.batching import Chunk, Job
from app.inference.inputs import Generated, Images, Uploaded, check_generator, find_generator, size_text, take
from app.inference.latents import draw_seed
from app.inference.model import Model
from app.inference.runtime import Labels
from app.inference.sampling import Seeded, seeded, split

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG, NPZ)
# Per image in `image/png`: the input, its bicubic interpolation, the model's output.
PICTURES = 3

# An integer rather than a literal, which would be equal to 2.0.
Factor = Annotated[
    Annotated[int, Field(ge=2, le=4, multiple_of=2)] | None,
    Field(description="2 or 4; default: that of the model", examples=[2]),
]


class UpscaleQuery(Query):
    """Options of uploads to upscale; `factor` may also stand beside a JSON body."""

    factor: Annotated[Factor, IntegerText] = None
    model: ModelName = None
    normalize: NormalizeText = True
    scale: ScaleText = 1


class UpscaleRequest(GeneratedBody):
    """Images of a low-resolution model to upscale."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"factor": 4, "n": 4, "seed": 8}]})

    factor: Factor = None
    model: ModelName = Field(None, description="the model that upscales; default: the first that can")
    scale: Scale = 1


class UpscaleForm(BaseModel):
    """A multipart form with images to upscale."""

    files: Files


class UpscaledItem(ImageItem):
    """An upscaled image."""

    warnings: Warnings


class UpscaleAnswer(Answer):
    """Upscaled images, with seed, prior and generator of the small ones, all null for uploads."""

    seed: int | None = Field(examples=[8])
    prior: Prior | None = Field(examples=["normal"])
    generator: str | None
    factor: int = Field(examples=[4])
    images: list[UpscaledItem]


@dataclass(frozen=True, slots=True)
class UpscaleJob(Job[RenderedImages]):
    """Small images to upscale."""

    operation = "upscale"

    images: Images
    rows: int
    factor: int
    renderer: ImageRenderer

    @property
    def other_models(self) -> tuple[Model, ...]:
        """The generator of the images, if there is one."""
        return self.images.models

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[RenderedImages]:
        """Take the small images, upscale, encode."""
        taken = take([(chunk.job.images, chunk.first, chunk.count) for chunk in chunks])
        (upscaled,) = model.run("upscale", np.concatenate([images for images, _ in taken]))
        pixels = split(encode.to_uint8(upscaled[:, 0]), [chunk.count for chunk in chunks])
        return [
            chunk.job.part(chunk.first, encode.to_uint8(images[:, 0]), own, labels)
            for chunk, (images, labels), own in zip(chunks, taken, pixels, strict=True)
        ]

    def part(self, offset: int, inputs: Pixels, upscaled: Pixels, labels: Labels | None) -> RenderedImages:
        """The part that starts `offset` images into the response, of images `(n, h, w)` and `(n, H, W)`."""
        shown = compared(inputs, upscaled, self.factor) if self.renderer.media_type == PNG else upscaled
        fields = {"warnings": [*map(describe_warnings, self.images.warnings_of(offset, len(inputs)))]}
        return self.renderer.part(shown, labels, self.images.first + offset, fields, inputs=inputs)

    def answer(self, parts: Sequence[RenderedImages]) -> bytes:
        """The body in the media type of the response."""
        return self.renderer.content(parts, self.images.origin | {"factor": self.factor})


def compared(inputs: Pixels, upscaled: Pixels, factor: int) -> Pixels:
    """Three pictures of each image, one after the other: `(n, h, w)` and `(n, H, W)` to `(3 n, H, W)`.

    They are the input with each pixel repeated, its bicubic interpolation, and the upscaled image.
    """
    repeated = inputs.repeat(factor, axis=1).repeat(factor, axis=2)
    bicubic = np.stack([enlarge(image, factor) for image in inputs])
    return np.stack([repeated, bicubic, upscaled], axis=1).reshape(-1, *upscaled.shape[1:])


@router.post(
    "/upscale",
    operation_id="upscale",
    summary="Upscale images",
    response_model=UpscaleAnswer,
    **documented(*MEDIA_TYPES, query=UpscaleQuery, body=UpscaleRequest, form=UpscaleForm, image_body=True),
)
async def upscale(call: Call) -> Response:
    """The body is one image, a multipart form with up to 64 `files`, or JSON: images of a seed, made by a generator.

    A grey PNG of the size that the model takes is upscaled as it is. Any other image is brought to the form of the
    training images and reduced by the factor, as in training. JSON holds a PNG of each image. `image/png` has a row of
    three for each: the input, its bicubic interpolation, the answer. `application/x-npz` holds `images`, `inputs`
    (uint8), `index` and, if the generator has labels, `labels` (int64 class indices).
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    body_type = call.media_type(JSON, MULTIPART, *IMAGE_TYPES)
    asked = call.read_query(UpscaleQuery)
    if body_type == JSON:
        return await upscale_generated(call, media_type, asked.factor)
    model, factor = call.engine.select(asked.model, lambda model: factor_of(model, asked.factor))
    images, warnings = await call.read_files(
        body_type, model.manifest.image, normalized=asked.normalize, reduction=factor
    )
    check_pixels(call, model, len(images), asked.scale, media_type)
    renderer = ImageRenderer(media_type, model.provenance, model.manifest.classes, asked.scale, columns=PICTURES)
    return await call.answer(
        model, UpscaleJob(Uploaded(images, warnings), len(images), factor, renderer), media_type, None
    )


async def upscale_generated(call: Call, media_type: str, factor: int | None) -> Response:
    """Upscale the images that `/generate` gives for the same options."""
    asked = await call.read_json(UpscaleRequest, beside=("factor",))
    if None not in (factor, asked.factor):
        raise InvalidRequest("give factor in the query or in the body, not in both")
    seed = draw_seed() if asked.seed is None else asked.seed

    def prepare(model: Model) -> tuple[int, Model, Seeded]:
        def source_of(generator: Model) -> Seeded:
            check_generator(generator, model, Symbol.INPUT_IMAGE)
            return seeded(generator.manifest, asked.options, seed)

        return factor_of(model, factor or asked.factor), *find_generator(call.engine, asked.generator, model, source_of)

    model, (own_factor, generator, source) = call.engine.select(asked.model, prepare)
    check_pixels(call, model, asked.n, asked.scale, media_type)
    renderer = ImageRenderer(media_type, model.provenance, generator.manifest.classes, asked.scale, columns=PICTURES)
    job = UpscaleJob(Generated(generator, source, asked.first), asked.n, own_factor, renderer)
    return await call.answer(model, job, media_type, seed)


def factor_of(model: Model, requested: int | None) -> int:
    """The factor of a model. Raises CapabilityMissing, also if another factor is requested."""
    model.require("upscale")
    large, small = model.manifest.shape(Symbol.IMAGE), model.manifest.shape(Symbol.INPUT_IMAGE)
    factor = large[1] // small[1]
    if requested not in (None, factor):
        raise CapabilityMissing(
            f"model {model.name} upscales by {factor}, from {size_text(small)} to {size_text(large)}"
        )
    return factor


def check_pixels(call: Call, model: Model, count: int, scale: int, media_type: str) -> None:
    """Raises InvalidRequest for a response with too many images or pixels."""
    call.check_count(model, count, scale, paged=True, pictures=PICTURES if media_type == PNG else 1)

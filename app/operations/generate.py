"""`POST /generate`: images generated from a seed or from the caller's latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response

from app.api.call import Call, OperationRoute
from app.api.fields import LIMITED_BY, First, ImageCount, Latent, ModelName, SampledBody, Scale, Seed, check_last_index
from app.api.negotiation import JSON, NPZ, PNG
from app.api.rendering import ImageRenderer, RenderedImages
from app.api.responses import Answer, ImageItem, documented
from app.checkpoints.manifest import Prior
from app.images import encode
from app.inference.batching import Chunk, Job
from app.inference.latents import draw_seed
from app.inference.model import Model
from app.inference.sampling import Given, Seeded, draw, generate, given, seeded, split

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG, NPZ)

Latents = Annotated[
    list[Latent], Field(min_length=1, max_length=4096, fail_fast=True, json_schema_extra={LIMITED_BY: "max_images"})
]


class GenerateRequest(SampledBody):
    """Images of a seed, or of latents."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "cgan", "n": 16, "seed": 8, "label": "balanced"}]}
    )

    model: ModelName = None
    n: ImageCount | None = Field(
        None, description="number of images; default 1, or the number of latents", examples=[16]
    )
    seed: Seed | None = Field(None, description="default: drawn by the server and named in the answer", examples=[7])
    first: First = 0
    latents: Latents | None = Field(
        None, description="instead of a seed; each has the length `latent_dim` of the model", examples=[[[0.5, -1.25]]]
    )
    scale: Scale = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.latents is not None:
            sampled = (self.seed, self.prior, self.temperature, self.truncation)
            if any(value is not None for value in sampled) or self.first != 0:
                raise ValueError("latents replace seed, first, prior, temperature and truncation")
            if self.n is not None and self.n != len(self.latents):
                raise ValueError("n must be the number of latents")
        check_last_index(self.first, self.count)
        return self

    @property
    def count(self) -> int:
        """The number of images."""
        return self.n or len(self.latents or [()])


class GenerateAnswer(Answer):
    """Images with the seed and the prior that were used, both null for latents of the caller."""

    seed: int | None = Field(examples=[7])
    prior: Prior | None = Field(examples=["normal"])
    images: list[ImageItem]


@dataclass(frozen=True, slots=True)
class GenerateJob(Job[RenderedImages]):
    """Images of a source."""

    operation = "generate"

    source: Seeded | Given
    first: int
    rows: int
    renderer: ImageRenderer

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[RenderedImages]:
        """Draw latents, generate, encode."""
        drawn = draw(model, [(chunk.job.source, chunk.job.first + chunk.first, chunk.count) for chunk in chunks])
        pixels = split(encode.to_uint8(generate(model, drawn)[:, 0]), [chunk.count for chunk in chunks])
        return [
            chunk.job.renderer.part(own, labels, chunk.job.first + chunk.first, latents=latents)
            for chunk, (latents, labels), own in zip(chunks, drawn, pixels, strict=True)
        ]

    def answer(self, parts: Sequence[RenderedImages]) -> bytes:
        """The body in the media type of the answer."""
        source = self.source if isinstance(self.source, Seeded) else None
        return self.renderer.content(parts, {"seed": source and source.seed, "prior": source and source.prior})


@router.post(
    "/generate",
    operation_id="generate",
    summary="Generate images from a seed or from latents",
    response_model=GenerateAnswer,
    **documented(*MEDIA_TYPES, body=GenerateRequest),
)
async def generate_images(call: Call) -> Response:
    """Image i of a seed has the same bytes whatever `n` is; `first` starts at another index.

    JSON holds a PNG and the label of each image. `image/png` is a grid of ceil(sqrt n) columns. `application/x-npz`
    holds `images` (uint8), `latents` (float32), `index` and, if the model has labels, `labels` (int64 class indices).
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    call.media_type(JSON)
    asked = await call.read_json(GenerateRequest)
    seed = None
    if asked.latents is None:
        seed = draw_seed() if asked.seed is None else asked.seed

    def prepare(model: Model) -> GenerateJob:
        model.require("generate")
        source = (
            seeded(model.manifest, asked.options, seed)
            if seed is not None
            else given(model.manifest, asked.latents or [], asked.label)
        )
        renderer = ImageRenderer(media_type, model.provenance, model.manifest.classes, asked.scale, columns=None)
        return GenerateJob(source, asked.first, asked.count, renderer)

    model, job = call.engine.select(asked.model, prepare)
    call.check_count(model, asked.count, asked.scale, paged=seed is not None)
    return await call.answer(model, job, media_type, seed)

"""`POST /generate`: images generated from a seed or from the caller's latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response

from app.api.call import Call, OperationRoute
from app.api.fields import LIMITED_BY, First, Latent, ModelName, SampledBody, Scale, Seed, check_last_index
from app.api.negotiation import IDX, JSON, NPZ, PNG
from app.api.rendering import ImageRenderer
from app.api.responses import Answer, ImageItem, documented
from app.api.streaming import PIECE_IMAGES, STREAMED, PieceRenderer, answer_labels, answer_stream
from app.checkpoints.manifest import Prior
from app.errors import CapabilityMissing, InvalidRequest
from app.images import encode
from app.images.encode import Pixels
from app.images.stream_archive import MAX_IDX_CLASSES
from app.inference.batching import Chunk, Job
from app.inference.latents import draw_seed
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import Given, Seeded, draw, generate, given, seeded, split

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG, NPZ, *STREAMED)

StreamCount = Annotated[int, Field(ge=1, json_schema_extra={LIMITED_BY: "max_stream_images"})]
Latents = Annotated[
    list[Latent], Field(min_length=1, max_length=4096, fail_fast=True, json_schema_extra={LIMITED_BY: "max_images"})
]


class GenerateRequest(SampledBody):
    """Images of a seed, or of latents."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "cgan", "n": 16, "seed": 8, "label": "balanced"}]}
    )

    model: ModelName = None
    n: StreamCount | None = Field(
        None,
        description="number of images; default: 1, or the number of latents; without a stream at most "
        "`DIGITS_MAX_IMAGES`, by default 256",
        examples=[16],
    )
    seed: Seed | None = Field(None, description="default: drawn by the server and named in the response", examples=[7])
    first: First = 0
    latents: Latents | None = Field(
        None, description="instead of a seed; each has the length `latent_dim` of the model", examples=[[[0.5, -1.25]]]
    )
    scale: Scale = 1
    return_latents: bool = Field(
        False,
        description="whether each image of the JSON response has its `latent`; refused with other media types",
        examples=[True],
    )
    idx: Literal["images", "labels"] | None = Field(
        None, description="which of the two files `application/x-idx` is; default: images", examples=["labels"]
    )

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
        return self.n or (1 if self.latents is None else len(self.latents))


class GeneratedItem(ImageItem):
    """A generated image, and its latent if requested."""

    # Omitted rather than empty.
    latent: list[float] = Field(
        default_factory=list, description="of the image, with `return_latents`", examples=[[0.5, -1.25]]
    )


class GenerateAnswer(Answer):
    """Images with the seed and the prior that were used, both null for latents of the caller."""

    seed: int | None = Field(examples=[7])
    prior: Prior | None = Field(examples=["normal"])
    images: list[GeneratedItem]


@dataclass(frozen=True, slots=True)
class GenerateJob(Job[Any]):
    """Images of a source."""

    operation = "generate"

    source: Seeded | Given
    first: int
    rows: int
    renderer: ImageRenderer | PieceRenderer
    return_latents: bool = False

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[Any]:
        """Draw latents, generate, encode."""
        drawn = draw(model, [(chunk.job.source, chunk.job.first + chunk.first, chunk.count) for chunk in chunks])
        pixels = split(encode.to_uint8(generate(model, drawn)[:, 0]), [chunk.count for chunk in chunks])
        return [
            chunk.job.part(own, labels, chunk.first, latents)
            for chunk, (latents, labels), own in zip(chunks, drawn, pixels, strict=True)
        ]

    def part(self, pixels: Pixels, labels: Labels | None, offset: int, latents: Rows) -> Any:
        """The part that starts `offset` images into the response, of images `(n, H, W)` and latents `(n, latent)`."""
        fields = {"latent": latents.tolist()} if self.return_latents else {}
        return self.renderer.part(pixels, labels, self.first + offset, fields=fields, latents=latents)

    def answer(self, parts: Sequence[Any]) -> bytes:
        """The body in the media type of the response, or a piece of it."""
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

    JSON holds a PNG and the label of each image, with `return_latents` also its latent. `image/png` is a grid of
    ceil(sqrt n) columns. `application/x-npz` holds `images` (uint8), `latents` (float32), `index` and, if the model has
    labels, `labels` (int64 class indices).

    The other media types are streams, which are computed while they are read. `application/x-ndjson` is a line of JSON
    an image, `text/event-stream` an event `image` each and an event `end`, `application/zip` a PNG each in folders by
    class, and `application/x-idx` the file of images, or of labels, in the format of MNIST.
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    call.media_type(JSON)
    asked = await call.read_json(GenerateRequest)
    if asked.idx is not None and media_type != IDX:
        raise InvalidRequest(f"idx needs the header Accept: {IDX}")
    if asked.return_latents and media_type != JSON:
        raise InvalidRequest(f"return_latents needs the header Accept: {JSON}; {NPZ} has the latents without it")
    seed = None
    if asked.latents is None:
        seed = draw_seed() if asked.seed is None else asked.seed

    def prepare(model: Model) -> Seeded | Given:
        model.require("generate")
        if seed is not None:
            source: Seeded | Given = seeded(model.manifest, asked.options, seed)
        else:
            source = given(model.manifest, asked.latents or [], asked.label)
        if asked.idx == "labels":
            check_idx_labels(model, source)
        return source

    model, source = call.engine.select(asked.model, prepare)
    if media_type not in STREAMED:
        call.check_count(model, asked.count, asked.scale, paged=seed is not None)
        renderer = ImageRenderer(media_type, model.provenance, model.manifest.classes, asked.scale, columns=None)
        job = GenerateJob(source, asked.first, asked.count, renderer, asked.return_latents)
        return await call.answer(model, job, media_type, seed)
    if asked.count > call.settings.max_stream_images:
        raise InvalidRequest(f"a stream is limited to {call.settings.max_stream_images} images; page with `first`")
    call.check_pixels(model, min(asked.count, PIECE_IMAGES), asked.scale)
    if asked.idx == "labels":
        return await answer_labels(call, model, source, asked.first, asked.count, seed)
    pieces = PieceRenderer(media_type, model.manifest.classes, asked.scale)

    def piece(offset: int, count: int) -> GenerateJob:
        return GenerateJob(source, asked.first + offset, count, pieces)

    return await answer_stream(call, model, piece, asked.count, media_type, seed)


def check_idx_labels(model: Model, source: Seeded | Given) -> None:
    """Raises CapabilityMissing if the images have no labels, or more classes than an IDX file of bytes can hold."""
    if source.labels(0, 1) is None:
        raise CapabilityMissing(f"images of model {model.name} have no labels")
    if len(model.manifest.classes) > MAX_IDX_CLASSES:
        raise CapabilityMissing(f"model {model.name} has more than {MAX_IDX_CLASSES} classes")

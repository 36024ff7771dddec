"""`GET /interpolate` and `POST /interpolate`: images along a path between two latents."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from app.api.call import MULTIPART, Call, OperationRoute, name_origin
from app.api.fields import (
    LIMITED_BY,
    Body,
    ClassName,
    ClassText,
    IntegerText,
    Latent,
    LatentText,
    ModelName,
    NormalizeText,
    NumberText,
    PriorName,
    Query,
    Scale,
    ScaleText,
    Seed,
    SeedText,
    Temperature,
    Truncation,
    Upload,
)
from app.api.negotiation import APNG, JSON, NPZ, PNG, matches
from app.api.rendering import ImageRenderer, RenderedImages
from app.api.responses import Answer, ImageItem, documented
from app.checkpoints.manifest import Prior
from app.errors import CapabilityMissing, InvalidRequest
from app.images import encode
from app.inference.batching import Chunk, Job
from app.inference.interpolation import (
    End,
    Path,
    UploadEnd,
    default_path,
    end_latents,
    interpolate,
    labels_along,
    make_ends,
)
from app.inference.latents import draw_seed
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import (
    Given,
    SamplingOptions,
    Seeded,
    generate,
    input_classes,
    split,
)

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG, APNG, NPZ)
SEED_HEADERS = ("X-From-Seed", "X-To-Seed")
DOCUMENTED_HEADERS = {
    name: {"description": "the seed of this end, if it is one", "schema": {"type": "integer"}} for name in SEED_HEADERS
}
ETAG = {
    "ETag": {
        "description": "if both ends are given, for a byte-identical model",
        "schema": {"type": "string"},
    }
}

Steps = Annotated[
    int,
    Field(
        ge=2,
        description="number of images, both ends included",
        examples=[10],
        json_schema_extra={LIMITED_BY: "max_images"},
    ),
]
StepsText = Annotated[Steps, IntegerText]
PathName = Annotated[
    Path | None,
    Field(
        description="straight line, or great circle of the sphere on which normal latents lie; default slerp, and lerp "
        "between latents of a fitted prior",
        examples=["slerp"],
    ),
]


FROM_SEED = "seed of the first end; default: drawn by the server"
TO_SEED = "seed of the last end; default: drawn by the server"
FROM_LATENT = "latent of the first end, instead of a seed"
TO_LATENT = "latent of the last end, instead of a seed"


class _Ends(BaseModel):
    """Options of a path between two ends, each a seed or a latent."""

    model: ModelName = None
    label: ClassName | None = Field(
        None,
        description="class along the path of a conditional model, or of both ends with a fitted prior",
        examples=["3"],
    )
    from_label: ClassName | None = Field(
        None, description="class of the first end, with a fitted prior", examples=["3"]
    )
    to_label: ClassName | None = Field(None, description="class of the last end, with a fitted prior", examples=["8"])
    prior: PriorName = None
    path: PathName = None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.label is not None and (self.from_label, self.to_label) != (None, None):
            raise ValueError("give label, or from_label and to_label")
        return self


class InterpolateQuery(Query, _Ends):
    """A path between two ends, each a seed or a latent."""

    from_seed: SeedText | None = Field(None, description=FROM_SEED, examples=[1])
    to_seed: SeedText | None = Field(None, description=TO_SEED, examples=[2])
    from_latent: LatentText | None = Field(
        None, description=f"{FROM_LATENT}: numbers separated by commas", examples=["0.5,-1.25"]
    )
    to_latent: LatentText | None = Field(
        None, description=f"{TO_LATENT}: numbers separated by commas", examples=["-0.25,1"]
    )
    temperature: Annotated[Temperature, NumberText] = None
    truncation: Annotated[Truncation, NumberText] = None
    steps: StepsText = 10
    scale: ScaleText = 1


class InterpolateRequest(Body, _Ends):
    """A path between two ends, each a seed or a latent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"from_seed": 1, "to_seed": 2, "steps": 8}]})

    from_seed: Seed | None = Field(None, description=FROM_SEED, examples=[1])
    to_seed: Seed | None = Field(None, description=TO_SEED, examples=[2])
    from_latent: Latent | None = Field(None, description=FROM_LATENT, examples=[[0.5, -1.25]])
    to_latent: Latent | None = Field(None, description=TO_LATENT, examples=[[-0.25, 1]])
    temperature: Temperature = None
    truncation: Truncation = None
    steps: Steps = 10
    scale: Scale = 1


class InterpolateUploadQuery(Query):
    """A path between two uploads."""

    model: ModelName = None
    label: ClassText | None = Field(
        None, description="class of both images, required by a conditional model", examples=["3"]
    )
    steps: StepsText = 10
    path: PathName = None
    scale: ScaleText = 1
    normalize: NormalizeText = True


class InterpolateForm(BaseModel):
    """A multipart form with the two ends of a path."""

    files: list[Upload] = Field(min_length=2, max_length=2, description="from and to")


class InterpolateAnswer(Answer):
    """Images along a path; `seed` is the seed of the first end."""

    seed: int | None = Field(description="null for an end that is not a seed")
    from_seed: int | None
    to_seed: int | None
    prior: Prior | None = Field(description="of the ends that are seeds, null if none is", examples=["normal"])
    path: Path
    images: list[ImageItem]


@dataclass(frozen=True, slots=True)
class InterpolateJob(Job[RenderedImages]):
    """Images along the path between two ends."""

    operation = "interpolate"

    model: Model
    ends: tuple[End, End]
    path: Path
    rows: int
    renderer: ImageRenderer

    @property
    def seeds(self) -> tuple[int | None, int | None]:
        """The seeds of the ends; None for a latent or an upload."""
        start, end = (end.seed if isinstance(end, Seeded) else None for end in self.ends)
        return start, end

    @property
    def prior(self) -> Prior | None:
        """The prior of the ends that are seeds."""
        return next((end.prior for end in self.ends if isinstance(end, Seeded)), None)

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[RenderedImages]:
        """Find the ends, interpolate, generate, encode. Each chunk computes both ends of its path again."""
        ends = end_latents(model, [end for chunk in chunks for end in chunk.job.ends])
        along: list[tuple[Rows, Labels | None]] = []
        for chunk, start, end in zip(chunks, ends[::2], ends[1::2], strict=True):
            job, rows = chunk.job, slice(chunk.first, chunk.first + chunk.count)
            latents = interpolate(start, end, job.rows, job.path, rows)
            labels = labels_along(model.manifest, job.ends, job.rows)
            along.append((latents, None if labels is None else labels[rows]))
        pixels = split(encode.to_uint8(generate(model, along)[:, 0]), [chunk.count for chunk in chunks])
        return [
            chunk.job.renderer.part(own, labels, chunk.first, latents=latents)
            for chunk, (latents, labels), own in zip(chunks, along, pixels, strict=True)
        ]

    def answer(self, parts: Sequence[RenderedImages]) -> bytes:
        """The body in the media type of the response."""
        start, end = self.seeds
        fields = {"seed": start, "from_seed": start, "to_seed": end, "prior": self.prior, "path": self.path}
        return self.renderer.content(parts, fields)

    @property
    def seed_headers(self) -> dict[str, str]:
        """The headers that name the seeds of the ends."""
        return {name: str(seed) for name, seed in zip(SEED_HEADERS, self.seeds, strict=True) if seed is not None}

    @property
    def etag(self) -> str:
        """A strong ETag: a hash of everything that the bytes of the response depend on."""
        ends = [(end.latents.tobytes(), end.classes) if isinstance(end, Given) else end for end in self.ends]
        digest = hashlib.sha256(repr((ends, self.path, self.rows, self.renderer)).encode())
        return f'"{digest.hexdigest()[:32]}"'


@router.get(
    "/interpolate",
    operation_id="interpolate",
    summary="Interpolate between two latents",
    response_model=InterpolateAnswer,
    **documented(*MEDIA_TYPES, query=InterpolateQuery, headers=DOCUMENTED_HEADERS | ETAG, not_modified=True),
)
async def interpolate_query(call: Call) -> Response:
    """An end that is a seed is image 0 of `/generate` for the same seed, label and sampling options.

    `image/png` is a strip, `image/apng` an animation. If both ends are given, the response has a strong ETag
    and `If-None-Match` is supported.
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    asked = call.read_query(InterpolateQuery)
    job = make_job(call, asked, media_type)
    headers = job.seed_headers
    ends_given = ((asked.from_seed, asked.from_latent), (asked.to_seed, asked.to_latent))
    identical = all(job.model.byte_identical.get(name, True) for name in ("generate", "prior"))
    if (None, None) not in ends_given and identical:
        headers["ETag"] = etag = job.etag
        if matches(",".join(call.header_values(b"if-none-match")), etag):
            return name_origin(Response(status_code=304, headers=headers), job.model.provenance, job.seeds[0])
    return await call.answer(job.model, job, media_type, job.seeds[0], headers)


@router.post(
    "/interpolate",
    operation_id="interpolate_between",
    summary="Interpolate between two latents or two uploads",
    response_model=InterpolateAnswer,
    **documented(
        *MEDIA_TYPES,
        query=InterpolateUploadQuery,
        body=InterpolateRequest,
        form=InterpolateForm,
        headers=DOCUMENTED_HEADERS,
    ),
)
async def interpolate_body(call: Call) -> Response:
    """The body is JSON, or a multipart form with two `files`, from and to, for a model that encodes."""
    media_type = call.negotiate(*MEDIA_TYPES)
    if call.media_type(JSON, MULTIPART) == MULTIPART:
        return await interpolate_uploads(call, media_type)
    asked = await call.read_json(InterpolateRequest)
    job = make_job(call, asked, media_type)
    return await call.answer(job.model, job, media_type, job.seeds[0], job.seed_headers)


async def interpolate_uploads(call: Call, media_type: str) -> Response:
    """The ends are the means of the posteriors of two uploads."""
    asked = call.read_query(InterpolateUploadQuery)

    def prepare(model: Model) -> tuple[int, ...] | None:
        model.require(model.encoder, "generate")
        require_smooth_latents(model)
        return input_classes(model.manifest, asked.label)

    model, classes = call.engine.select(asked.model, prepare)
    call.check_count(model, asked.steps, asked.scale)
    images, _ = await call.read_images(MULTIPART, "files", 2, model.manifest.upload_form, normalized=asked.normalize)
    if len(images) != 2:
        raise InvalidRequest("the field 'files' must have two files: from and to")
    ends = UploadEnd(images[:1], classes), UploadEnd(images[1:], classes)
    renderer = ImageRenderer(media_type, model.provenance, model.manifest.classes, asked.scale, columns=asked.steps)
    job = InterpolateJob(model, ends, asked.path or default_path(model.manifest), asked.steps, renderer)
    return await call.answer(model, job, media_type, None)


def make_job(call: Call, asked: InterpolateQuery | InterpolateRequest, media_type: str) -> InterpolateJob:
    """The job for the selected model. Raises InvalidRequest, CapabilityMissing and ModelNotFound."""
    seeds, latents = (asked.from_seed, asked.to_seed), (asked.from_latent, asked.to_latent)
    for side, seed, latent in zip(("from", "to"), seeds, latents, strict=True):
        if seed is not None and latent is not None:
            raise InvalidRequest(f"give {side}_seed or {side}_latent, not both")
    sampled = (asked.prior, asked.temperature, asked.truncation)
    if None not in latents and any(value is not None for value in sampled):
        raise InvalidRequest("prior, temperature and truncation need an end that is a seed")
    options = SamplingOptions(asked.label, asked.prior, asked.temperature, asked.truncation)
    end_labels = asked.from_label, asked.to_label
    drawn = [draw_seed() if seed is None else seed for seed in seeds]

    def prepare(model: Model) -> InterpolateJob:
        model.require("generate")
        require_smooth_latents(model)
        ends = make_ends(model.manifest, options, end_labels, drawn, latents)
        renderer = ImageRenderer(media_type, model.provenance, model.manifest.classes, asked.scale, columns=asked.steps)
        path = asked.path or default_path(model.manifest, asked.prior)
        return InterpolateJob(model, ends, path, asked.steps, renderer)

    model, job = call.engine.select(asked.model, prepare)
    call.check_count(model, asked.steps, asked.scale)
    return job


def require_smooth_latents(model: Model) -> None:
    """Raises CapabilityMissing for a model whose images do not change gradually with their latents."""
    if not model.manifest.smooth_latents:
        raise CapabilityMissing(f"images of model {model.name} do not change gradually with their latents")

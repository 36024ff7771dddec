"""`POST /reconstruct`: encode an uploaded image and decode it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, MULTIPART, Call, OperationRoute
from app.api.fields import ClassText, ModelName, NormalizeText, Query, ScaleText, SeedText, Upload
from app.api.negotiation import JSON, NPZ, PNG
from app.api.rendering import base64_png
from app.api.responses import Answer, Png, Warnings, describe_warnings, documented, json_content
from app.checkpoints.capabilities import Symbol
from app.errors import CapabilityMissing
from app.images import encode
from app.images.encode import Pixels
from app.images.shapes import WarningCode
from app.inference.batching import Chunk, Job
from app.inference.latents import POSTERIOR_STREAM, normal_rows
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import concatenated, input_classes

router = APIRouter(tags=["images"], route_class=OperationRoute)

MEDIA_TYPES = (JSON, PNG, NPZ)
# Lower bound of the logarithm of a pixel probability, as in `torch.nn.BCELoss`.
LEAST_LOGARITHM = -100.0


class ReconstructQuery(Query):
    """Options of an upload to reconstruct."""

    model: ModelName = None
    label: ClassText | None = Field(
        None, description="class of the image, required by a conditional model", examples=["7"]
    )
    seed: SeedText | None = Field(
        None, description="decode a sample of the posterior instead of its mean", examples=[7]
    )
    normalize: NormalizeText = True
    scale: ScaleText = 1


class ReconstructForm(BaseModel):
    """A multipart form with an upload to reconstruct."""

    file: Upload


class LatentParameters(BaseModel):
    """The posterior q(z|x) of the upload, or its code."""

    mean: list[float]
    log_variance: list[float] | None = Field(description="null for a model with a deterministic encoder")


class ReconstructionErrors(BaseModel):
    """Errors of the reconstruction."""

    bce: float = Field(description="binary cross-entropy, nats an image")
    mse: float = Field(description="mean squared error a pixel")
    kl: float | None = Field(description="KL divergence of the posterior from the prior, nats an image")


class ReconstructAnswer(Answer):
    """An upload as the model saw it, and its reconstruction."""

    seed: int | None
    label: str | None = Field(description="class of the upload for a conditional model, else null")
    input: Png
    reconstruction: Png
    latent: LatentParameters
    errors: ReconstructionErrors
    warnings: Warnings


@dataclass(frozen=True, slots=True)
class ReconstructJob(Job[bytes]):
    """One image `(1, 1, H, W)` in [0, 1]."""

    operation = "reconstruct"
    rows = 1

    image: Rows
    warnings: list[WarningCode]
    labels: Labels | None
    asked: ReconstructQuery
    media_type: str
    model: Model

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[bytes]:
        """Encode, sample, decode, measure, render."""
        jobs = [chunk.job for chunk in chunks]
        images = np.concatenate([job.image for job in jobs])
        labels = concatenated([job.labels for job in jobs])
        mean, log_variance = model.encode(images, labels)
        latents = mean.copy()
        for i, job in enumerate(jobs):
            if job.asked.seed is not None and log_variance is not None:
                noise = normal_rows(job.asked.seed, 0, 1, mean.shape[1], stream=POSTERIOR_STREAM)
                latents[i] = mean[i] + np.exp(0.5 * log_variance[i]) * noise[0]
        (decoded,) = model.run("decode", latents, labels)
        bce, mse = pixel_errors(images, decoded)
        kl = [None] * len(jobs) if log_variance is None else kl_divergence(mean, log_variance).tolist()
        pairs = encode.to_uint8(np.concatenate([images, decoded], axis=1))  # (n, 2, H, W)
        return [
            job._render(
                pairs[i],
                mean[i],
                None if log_variance is None else log_variance[i],
                {"bce": float(bce[i]), "mse": float(mse[i]), "kl": kl[i]},
            )
            for i, job in enumerate(jobs)
        ]

    def answer(self, parts: Sequence[bytes]) -> bytes:
        """The body, which is the only part."""
        return parts[0]

    def _render(self, pair: Pixels, mean: Rows, log_variance: Rows | None, errors: dict[str, float | None]) -> bytes:
        """The body in the media type of the response, for the input and its reconstruction `(2, H, W)`."""
        if self.media_type == PNG:
            return encode.png(encode.grid(pair, 2), scale=self.asked.scale)
        if self.media_type == NPZ:
            posterior = {"mean": mean} if log_variance is None else {"mean": mean, "log_variance": log_variance}
            return encode.npz(input=pair[0], reconstruction=pair[1], **posterior)
        first, second = (base64_png(image, self.asked.scale).decode() for image in pair)
        fields = {
            "seed": self.asked.seed,
            "label": self.asked.label,
            "input": {"png": first},
            "reconstruction": {"png": second},
            "latent": {
                "mean": mean.tolist(),
                "log_variance": None if log_variance is None else log_variance.tolist(),
            },
            "errors": errors,
            "warnings": describe_warnings(self.warnings),
        }
        return json_content(self.model.provenance, fields)


def pixel_errors(images: Rows, decoded: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Binary cross-entropy summed over pixels in nats and mean squared error a pixel, `(n,)` each.

    Shapes: `(n, 1, H, W)` in [0, 1] twice.
    """
    x, y = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (images, decoded))
    with np.errstate(divide="ignore"):  # the logarithm of 0
        log_y, log_not_y = (np.maximum(np.log(p), LEAST_LOGARITHM) for p in (y, 1 - y))
    return -(x * log_y + (1 - x) * log_not_y).sum(axis=1), np.square(y - x).mean(axis=1)


def kl_divergence(mean: Rows, log_variance: Rows) -> NDArray[np.float64]:
    """KL(q(z|x) || N(0, I)) in nats: `(n, latent)` twice to `(n,)`. Source: arXiv:1312.6114, appendix B."""
    m, v = mean.astype(np.float64), log_variance.astype(np.float64)
    divergence: NDArray[np.float64] = -0.5 * (1 + v - m**2 - np.exp(v)).sum(axis=1)
    return divergence


@router.post(
    "/reconstruct",
    operation_id="reconstruct",
    summary="Encode an uploaded image and decode it again",
    response_model=ReconstructAnswer,
    **documented(*MEDIA_TYPES, query=ReconstructQuery, form=ReconstructForm, image_body=True),
)
async def reconstruct(call: Call) -> Response:
    """Any PNG or JPEG of a digit: dark on light or light on dark, a drawing or a photo.

    The file is the body itself, or the field `file` of a multipart form. `input` is the image as the model saw it.
    `image/png` shows input and reconstruction side by side; `application/x-npz` holds both (uint8) with `mean` and
    `log_variance` (float32).
    """
    media_type = call.negotiate(*MEDIA_TYPES)
    body_type = call.media_type(MULTIPART, *IMAGE_TYPES)
    asked = call.read_query(ReconstructQuery)

    def prepare(model: Model) -> Labels | None:
        model.require(model.encoder, "decode")
        if model.manifest.shape(Symbol.INPUT_IMAGE) != model.manifest.shape(Symbol.IMAGE):
            raise CapabilityMissing(f"model {model.name} makes images of another size than it takes")
        if asked.seed is not None and model.encoder == "embed":
            raise CapabilityMissing(f"model {model.name} has a deterministic encoder and samples no posterior")
        classes = input_classes(model.manifest, asked.label)
        return None if classes is None else np.array(classes, dtype=np.int64)

    model, labels = call.engine.select(asked.model, prepare)
    call.check_count(model, 2, asked.scale)
    image, (warnings,) = await call.read_images(
        body_type, "file", 1, model.manifest.upload_form, normalized=asked.normalize
    )
    job = ReconstructJob(image, warnings, labels, asked, media_type, model)
    return await call.answer(model, job, media_type, asked.seed)

"""What answers look like. The field names are the contract."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.manifest import Control, ImageForm, Precision, Prior


class ImageItem(BaseModel):
    """One generated image."""

    index: int = Field(examples=[0])
    label: str | None = Field(description="the name of its class; null where the model has no labels", examples=["3"])
    png: str = Field(description="base64")


class Png(BaseModel):
    """An image."""

    png: str = Field(description="base64")


class _Answer(BaseModel):
    """What every answer names."""

    model: str = Field(examples=["vae"])
    digest: str = Field(description="SHA-256 of the archive", examples=["f12893a7ee89" + 52 * "0"])
    precision: Precision = Field(description="of the archive that served", examples=["bfloat16"])
    runtime: str = Field(
        description="hash of precision, processor model, device and library versions", examples=["0ade62aaf36e2d53"]
    )


class GenerateAnswer(_Answer):
    """Images with the seed and the prior that were used, null where the caller gave latents."""

    seed: int | None = Field(examples=[7])
    prior: Prior | None = Field(examples=["normal"])
    images: list[ImageItem]


class LatentParameters(BaseModel):
    """The posterior q(z|x) of an upload."""

    mean: list[float]
    log_variance: list[float]


class ReconstructionErrors(BaseModel):
    """How far a reconstruction is from its input."""

    bce: float = Field(description="binary cross-entropy, nats an image")
    mse: float = Field(description="squared difference a pixel")
    kl: float = Field(description="KL divergence of the posterior from the prior, nats an image")


class ReconstructAnswer(_Answer):
    """An upload as the model saw it and what the model made of it."""

    seed: int | None
    label: str | None = Field(description="of the upload, for a conditional model; else null")
    input: Png
    reconstruction: Png
    latent: LatentParameters
    errors: ReconstructionErrors


class InterpolateAnswer(_Answer):
    """Images along a path; `seed` is that of the first end, null where it is no seed."""

    seed: int | None
    from_seed: int | None
    to_seed: int | None
    prior: Prior | None = Field(description="of the ends that are seeds; null where none is", examples=["normal"])
    path: str
    images: list[ImageItem]


class ScoreItem(BaseModel):
    """One image's score."""

    index: int = Field(examples=[0])
    label: str | None = Field(description="the class it was generated or scored as; else null", examples=["3"])
    logit: float = Field(examples=[1.54])
    probability: float = Field(description="the logit's sigmoid", examples=[0.82])


class ScoreAnswer(_Answer):
    """What a discriminator says of images."""

    seed: int | None
    generator: str | None
    meaning: str
    scores: list[ScoreItem]


class ModelSummary(BaseModel):
    """A model in the list."""

    name: str = Field(examples=["vae"])
    family: str = Field(examples=["vae"])
    capabilities: list[Capability]
    digest: str
    precision: Precision
    latent_dim: int
    conditional: bool = Field(description="whether the networks take labels, those of uploads too")
    priors: list[Prior] = Field(description="what latents can be drawn from; the first is the default")
    sampling: list[Control] = Field(description="how drawing can be controlled")
    image: ImageForm
    classes: list[str] = Field(description="names to ask for, where the model is conditional or has a fitted prior")


class ModelList(BaseModel):
    """Every loaded model."""

    default: str | None = Field(description="the configured default; null where the first capable one serves")
    models: list[ModelSummary]


class RuntimeFacts(BaseModel):
    """What the runtime id is a hash of."""

    id: str
    facts: dict[str, str]


class Guarantee(BaseModel):
    """What was seen at the start, on this device, of the rows of one capability."""

    byte_identical: bool = Field(description="a row was the same bits alone, in batches of several sizes and full ones")
    row_multiple: int = Field(description="batches are padded to a multiple of so many rows")


class ModelDetail(BaseModel):
    """A model's manifest (without its golden rows), its card, and what the service promises of it."""

    name: str = Field(examples=["vae"])
    digest: str
    precision: Precision
    runtime: RuntimeFacts
    guarantees: dict[Capability, Guarantee]
    manifest: dict[str, Any]
    card: str | None = Field(description="Markdown")


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(examples=["invalid_request"])
    request_id: str | None
    errors: list[dict[str, Any]] | None = Field(None, description="location and message of each fault, with 422")
    reasons: list[str] | None = Field(None, description="why the service is not ready")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The service takes requests."""

    status: Literal["ready"] = "ready"
    models: list[str] = Field(examples=[["gan", "vae"]])

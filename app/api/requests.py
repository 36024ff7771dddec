"""What bodies and queries may hold, and how strictly. The field names are the contract."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.inference.latents import MAX_SEED

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
ModelName = Annotated[str, Field(min_length=1, max_length=64, examples=["vae"])]
Latent = Annotated[list[float], Field(min_length=1, max_length=4096)]
Scale = Annotated[int, Field(ge=1, le=16, description="enlarges PNGs by whole pixels")]
Steps = Annotated[int, Field(ge=2, description="images from end to end, both ends counted")]
PathName = Annotated[
    Literal["lerp", "slerp"],
    Field(description="the straight line, or the arc on the sphere where normal latents lie"),
]
Normalize = Annotated[
    bool,
    Field(description="centre, scale and invert an upload as the model's manifest says; false only resizes it"),
]


class _Strict(BaseModel):
    """No unknown field, no text for a number, no boolean for an integer, nothing that is not finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def _plain_integer(value: object) -> object:
    """Text of a query as an integer: ASCII digits only, none of the forms that Python's `int` also takes."""
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise ValueError("an integer is written in digits")
        return int(value)
    return value


def _plain_boolean(value: object) -> object:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise ValueError("true or false")
        return value == "true"
    return value


PlainInteger = BeforeValidator(_plain_integer, json_schema_input_type=int)
PlainBoolean = BeforeValidator(_plain_boolean, json_schema_input_type=bool)


QuerySeed = Annotated[Seed, PlainInteger]


class _Query(BaseModel):
    """A query string: values come as text, so numbers are read from it, but no unknown name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _check_last(first: int, count: int) -> None:
    if first + count - 1 > MAX_SEED:
        raise ValueError("first + n - 1 is over 2^53 - 1")


class GenerateRequest(_Strict):
    """Images of a seed, or of latents."""

    model: ModelName | None = Field(None, description="unset, the default model")
    n: int | None = Field(None, ge=1, description="how many; unset, 1 or one a latent", examples=[16])
    seed: Seed | None = Field(None, description="unset, the server draws one and tells it", examples=[7])
    first: int = Field(0, ge=0, le=MAX_SEED, description="index of the first image of the seed")
    latents: list[Latent] | None = Field(
        None, min_length=1, max_length=4096, description="rows of the model's width, in place of a seed"
    )
    scale: Scale = 1

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.latents is not None:
            if self.seed is not None or self.first != 0:
                raise ValueError("latents stand in place of seed and first")
            if self.n is not None and self.n != len(self.latents):
                raise ValueError("n is not the number of latents")
        _check_last(self.first, self.count)
        return self

    @property
    def count(self) -> int:
        """Images asked for."""
        return self.n or len(self.latents or [()])


class ReconstructQuery(_Query):
    """Options of an upload to reconstruct."""

    model: ModelName | None = None
    seed: QuerySeed | None = Field(None, description="decode a sample of the posterior instead of its mean")
    normalize: Annotated[Normalize, PlainBoolean] = True
    scale: Annotated[Scale, PlainInteger] = 1


class InterpolateQuery(_Query):
    """Two ends, each a seed or a latent."""

    model: ModelName | None = None
    from_seed: QuerySeed | None = Field(None, description="unset, the server draws one and tells it", examples=[1])
    to_seed: QuerySeed | None = Field(None, description="unset, the server draws one and tells it", examples=[2])
    from_latent: str | None = Field(None, max_length=65536, description="comma-separated numbers")
    to_latent: str | None = Field(None, max_length=65536, description="comma-separated numbers")
    steps: Annotated[Steps, PlainInteger] = 10
    path: PathName = "slerp"
    scale: Annotated[Scale, PlainInteger] = 1


class InterpolateRequest(_Strict):
    """Two ends, each a seed or a latent, as JSON."""

    model: ModelName | None = None
    from_seed: Seed | None = None
    to_seed: Seed | None = None
    from_latent: Latent | None = None
    to_latent: Latent | None = None
    steps: Steps = 10
    path: PathName = "slerp"
    scale: Scale = 1


class InterpolateUploadQuery(_Query):
    """Options where the ends are two uploads."""

    model: ModelName | None = None
    steps: Annotated[Steps, PlainInteger] = 10
    path: PathName = "slerp"
    scale: Annotated[Scale, PlainInteger] = 1
    normalize: Annotated[Normalize, PlainBoolean] = True


class ScoreUploadQuery(_Query):
    """Options of uploads to score."""

    model: ModelName | None = None
    normalize: Annotated[Normalize, PlainBoolean] = True


class ScoreRequest(_Strict):
    """Generated images to score."""

    model: ModelName | None = Field(None, description="the one that scores")
    generator: ModelName | None = Field(
        None, description="the one that generates; unset, the one that scores if it can, else the default"
    )
    n: int = Field(1, ge=1, examples=[4])
    seed: Seed | None = Field(None, description="unset, the server draws one and tells it", examples=[7])
    first: int = Field(0, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _last(self) -> Self:
        _check_last(self.first, self.n)
        return self

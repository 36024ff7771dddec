"""What bodies and queries may hold, and how strictly. The field names are the contract."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from app.checkpoints.manifest import EVERY_CLASS, Prior
from app.inference.latents import MAX_SEED
from app.inference.sampling import Choices

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
ModelName = Annotated[str, Field(min_length=1, max_length=64, examples=["vae"])]
Latent = Annotated[list[float], Field(min_length=1, max_length=4096)]
Scale = Annotated[int, Field(ge=1, le=16, description="enlarges PNGs by whole pixels")]
Steps = Annotated[int, Field(ge=2, description="images from end to end, both ends counted")]
PathName = Annotated[
    Literal["lerp", "slerp"],
    Field(
        description="the straight line, or the arc on the sphere where normal latents lie; unset, slerp, and lerp "
        "where the ends are of a fitted prior"
    ),
]


def _class_name(value: object) -> object:
    """An integer of JSON as the name that is written so."""
    return str(value) if type(value) is int and 0 <= value <= MAX_SEED else value


def _one_class(name: str) -> str:
    if name == EVERY_CLASS:
        raise ValueError("one class is asked for here")
    return name


# A class is asked for as the manifest names it. 3 in JSON stands for "3": a name, never the number of a class.
ClassText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_class)]
ClassName = Annotated[ClassText, BeforeValidator(_class_name, json_schema_input_type=str | int)]


def _label(value: object) -> str | list[str]:
    """One check and one message for all the forms that a label may have."""
    if value == EVERY_CLASS:
        return EVERY_CLASS
    names = [_class_name(item) for item in (value if isinstance(value, list) else [value])]
    known = [name for name in names if isinstance(name, str) and 1 <= len(name) <= 64 and name != EVERY_CLASS]
    if not 1 <= len(known) == len(names) <= 4096:
        raise ValueError("a label is the name of a class, a list of 1 to 4096 of them, or balanced")
    return known if isinstance(value, list) else known[0]


Label = Annotated[
    str | list[str], PlainValidator(_label, json_schema_input_type=Literal["balanced"] | str | int | list[str | int])
]
ClassList = Annotated[str, Field(min_length=1, max_length=4096)]
PriorName = Annotated[
    Prior, Field(description="what latents are drawn from; unset, the model's default, the first it lists")
]
Temperature = Annotated[
    float, Field(gt=0, le=2, description="of a VAE: multiplies the noise; below 1 images are likelier and less varied")
]
Truncation = Annotated[
    float,
    Field(gt=0, le=10, description="of a GAN: keeps noise within so many standard deviations; 2 cuts off 5 %"),
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


def _plain_number(value: object) -> object:
    if isinstance(value, str):
        if len(value) > 32 or not NUMBER.fullmatch(value):
            raise ValueError("a number is written in digits, with a point and an exponent where it has them")
        return float(value)
    return value


def _plain_boolean(value: object) -> object:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise ValueError("true or false")
        return value == "true"
    return value


PlainInteger = BeforeValidator(_plain_integer, json_schema_input_type=int)
PlainBoolean = BeforeValidator(_plain_boolean, json_schema_input_type=bool)
PlainNumber = BeforeValidator(_plain_number, json_schema_input_type=float)


QuerySeed = Annotated[Seed, PlainInteger]


class _Query(BaseModel):
    """A query string: values come as text, so numbers are read from it, but no unknown name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _check_last(first: int, count: int) -> None:
    if first + count - 1 > MAX_SEED:
        raise ValueError("first + n - 1 is over 2^53 - 1")


class _Sampled(_Strict):
    """How images are drawn."""

    label: Label | None = Field(
        None,
        description="a class by its name; several, of which image i has item i modulo their number; or `balanced`, all "
        "classes in turn. Unset, each image's class is drawn from seed and index",
        examples=["balanced", "3", ["3", "8"]],
    )
    prior: PriorName | None = None
    temperature: Temperature | None = None
    truncation: Truncation | None = None

    @property
    def choices(self) -> Choices:
        """What was chosen."""
        return Choices(self.label, self.prior, self.temperature, self.truncation)


class GenerateRequest(_Sampled):
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
            drawn = (self.seed, self.prior, self.temperature, self.truncation)
            if any(value is not None for value in drawn) or self.first != 0:
                raise ValueError("latents stand in place of seed, first, prior, temperature and truncation")
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
    label: ClassText | None = Field(None, description="the class of the image, which a conditional model needs")
    seed: QuerySeed | None = Field(None, description="decode a sample of the posterior instead of its mean")
    normalize: Annotated[Normalize, PlainBoolean] = True
    scale: Annotated[Scale, PlainInteger] = 1


class _Path(BaseModel):
    """Two ends, each a seed or a latent, and how they are drawn."""

    label: ClassName | None = Field(
        None, description="the class along the path of a conditional model, or of both ends with a fitted prior"
    )
    from_label: ClassName | None = Field(None, description="the class of one end, with a fitted prior")
    to_label: ClassName | None = Field(None, description="the class of the other end, with a fitted prior")
    prior: PriorName | None = None

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if self.label is not None and (self.from_label, self.to_label) != (None, None):
            raise ValueError("give label, or from_label and to_label")
        return self

    @property
    def classes(self) -> list[str]:
        """The classes asked for."""
        return [name for name in (self.label, self.from_label, self.to_label) if name is not None]


class InterpolateQuery(_Query, _Path):
    """Two ends, each a seed or a latent."""

    model: ModelName | None = None
    from_seed: QuerySeed | None = Field(None, description="unset, the server draws one and tells it", examples=[1])
    to_seed: QuerySeed | None = Field(None, description="unset, the server draws one and tells it", examples=[2])
    from_latent: str | None = Field(None, max_length=65536, description="comma-separated numbers")
    to_latent: str | None = Field(None, max_length=65536, description="comma-separated numbers")
    temperature: Annotated[Temperature, PlainNumber] | None = None
    truncation: Annotated[Truncation, PlainNumber] | None = None
    steps: Annotated[Steps, PlainInteger] = 10
    path: PathName | None = None
    scale: Annotated[Scale, PlainInteger] = 1


class InterpolateRequest(_Strict, _Path):
    """Two ends, each a seed or a latent, as JSON."""

    model: ModelName | None = None
    from_seed: Seed | None = None
    to_seed: Seed | None = None
    from_latent: Latent | None = None
    to_latent: Latent | None = None
    temperature: Temperature | None = None
    truncation: Truncation | None = None
    steps: Steps = 10
    path: PathName | None = None
    scale: Scale = 1


class InterpolateUploadQuery(_Query):
    """Options where the ends are two uploads."""

    model: ModelName | None = None
    label: ClassText | None = Field(None, description="the class of both images, which a conditional model needs")
    steps: Annotated[Steps, PlainInteger] = 10
    path: PathName | None = None
    scale: Annotated[Scale, PlainInteger] = 1
    normalize: Annotated[Normalize, PlainBoolean] = True


class ScoreUploadQuery(_Query):
    """Options of uploads to score."""

    model: ModelName | None = None
    label: ClassList | None = Field(
        None,
        description="the class of the images, or of each of them with commas between, for a conditional model",
        examples=["3", "3,4"],
    )
    normalize: Annotated[Normalize, PlainBoolean] = True


class ScoreRequest(_Sampled):
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

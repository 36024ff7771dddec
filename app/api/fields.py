"""Field types of requests that several operations share. All input is strict."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from app.checkpoints.manifest import EVERY_CLASS, Prior
from app.inference.latents import MAX_SEED
from app.inference.sampling import SamplingOptions

# Matches in linear time: no two parts of the pattern match the same digits.
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MAX_LABELS = 4096
MAX_LATENT_NUMBERS = 4096
MAX_LATENT_LENGTH = 32_768  # of its text in a query
MAX_NUMBER_LENGTH = 32
MAX_FILES = 64
# In a JSON schema: the setting that is the maximum. `app.api.docs` replaces it by the value.
LIMITED_BY = "x-limited-by"
REFERENCE = "#/components/schemas/{model}"


class Body(BaseModel):
    """A JSON body: no unknown field, no string for a number, no boolean for an integer, finite numbers only."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Query(BaseModel):
    """A query string: no unknown parameter, finite numbers only. Values are text, as of `IntegerText`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _from_text(pattern: str, convert: Callable[[str], object], expected: str) -> Callable[[object], object]:
    """A parser of text that matches the pattern; Python's own conversions also accept spaces and underscores."""

    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        if len(value) > MAX_NUMBER_LENGTH or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {expected}")
        return convert(value)

    return parse


def _numbers(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(",", MAX_LATENT_NUMBERS)
    if len(value) > MAX_LATENT_LENGTH or not all(NUMBER.fullmatch(part) for part in parts):
        raise ValueError(f"must be up to {MAX_LATENT_NUMBERS} numbers separated by commas")
    return [float(part) for part in parts]


# The text of a query parameter as a number or a boolean.
IntegerText = BeforeValidator(_from_text("-?[0-9]+", int, "an integer in digits"))
NumberText = BeforeValidator(_from_text(NUMBER.pattern, float, "a decimal number"))
BooleanText = BeforeValidator(_from_text("true|false", lambda text: text == "true", "true or false"))


def _name(value: object) -> object:
    """A JSON integer as its decimal text: 3 stands for the class named "3", never for the third class."""
    return str(value) if type(value) is int and 0 <= value <= MAX_SEED else value


def _one_class(name: str) -> str:
    if name == EVERY_CLASS:
        raise ValueError("must name a single class")
    return name


def _label(value: object) -> str | list[str]:
    if value == EVERY_CLASS:
        return EVERY_CLASS
    names = [_name(item) for item in (value if isinstance(value, list) else [value])]
    valid = [name for name in names if isinstance(name, str) and 1 <= len(name) <= 64 and name != EVERY_CLASS]
    if not 1 <= len(valid) == len(names) <= MAX_LABELS:
        raise ValueError(f"must be a class name, a list of 1 to {MAX_LABELS} class names, or {EVERY_CLASS}")
    return valid if isinstance(value, list) else valid[0]


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
SeedText = Annotated[Seed, IntegerText]
First = Annotated[int, Field(ge=0, le=MAX_SEED, description="index of the first image of the seed", examples=[0])]
ImageCount = Annotated[int, Field(ge=1, json_schema_extra={LIMITED_BY: "max_images"})]
ModelName = Annotated[
    Annotated[str, Field(min_length=1, max_length=64)] | None,
    Field(description="default: the first model that supports the request", examples=["cgan"]),
]
# Only the first fault of a long list is reported, because reporting a fault costs more than reading a number.
Latent = Annotated[list[float], Field(min_length=1, max_length=MAX_LATENT_NUMBERS, fail_fast=True)]
LatentText = Annotated[
    Latent, BeforeValidator(_numbers, json_schema_input_type=Annotated[str, Field(max_length=MAX_LATENT_LENGTH)])
]
Scale = Annotated[int, Field(ge=1, le=16, description="enlarges PNGs by this factor", examples=[4])]
ScaleText = Annotated[Scale, IntegerText]
ClassInput = Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=0, le=MAX_SEED)]
ClassText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_class)]
ClassName = Annotated[ClassText, BeforeValidator(_name, json_schema_input_type=ClassInput)]
ClassInputs = Annotated[list[ClassInput], Field(min_length=1, max_length=MAX_LABELS, fail_fast=True)]
Label = Annotated[str | list[str], PlainValidator(_label, json_schema_input_type=ClassInput | ClassInputs)]
PriorName = Annotated[
    Prior | None,
    Field(
        description="distribution of latents; default: the first one that the model lists",
        examples=["normal"],
    ),
]
Temperature = Annotated[
    Annotated[float, Field(gt=0, le=2)] | None,
    Field(
        description="scales the noise of a VAE; below 1 images are more typical and less diverse",
        examples=[0.7],
    ),
]
Truncation = Annotated[
    Annotated[float, Field(gt=0, le=10)] | None,
    Field(
        description="truncates the noise of a GAN at this many standard deviations",
        examples=[1.5],
    ),
]
NormalizeText = Annotated[
    bool,
    Field(
        description="center, scale and invert uploads as the manifest of the model says; false only resizes",
        examples=[True],
    ),
    BooleanText,
]
Upload = Annotated[bytes, Field(description="a PNG or JPEG", json_schema_extra={LIMITED_BY: "max_upload_bytes"})]
Files = Annotated[
    list[Upload],
    Field(min_length=1, max_length=MAX_FILES, description="the images", json_schema_extra={LIMITED_BY: "max_images"}),
]


class SampledBody(Body):
    """A JSON body with sampling options."""

    label: Label | None = Field(
        None,
        description="class name; or a list of them, taken in turn; or `balanced`, all classes in turn. By default the "
        "class of each image is drawn from seed and index",
        examples=["balanced", "3", ["3", "8"]],
    )
    prior: PriorName = None
    temperature: Temperature = None
    truncation: Truncation = None

    @property
    def options(self) -> SamplingOptions:
        """The sampling options."""
        return SamplingOptions(self.label, self.prior, self.temperature, self.truncation)


class GeneratedBody(SampledBody):
    """A JSON body with images of a seed, generated for another model."""

    generator: ModelName = Field(
        None, description="the model that generates the images; default: `model` if it can, else the first that can"
    )
    n: ImageCount = Field(1, description="number of images", examples=[4])
    seed: Seed | None = Field(None, description="default: drawn by the server and named in the response", examples=[7])
    first: First = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_last_index(self.first, self.n)
        return self


def check_last_index(first: int, count: int) -> None:
    """Raises ValueError if the index of the last image has no exact JSON number."""
    if first + count - 1 > MAX_SEED:
        raise ValueError("first + n - 1 must not exceed 2^53 - 1")


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, whose definitions `app.api.docs` moves to the components of the description."""
    schema: dict[str, Any] = model.model_json_schema(ref_template=REFERENCE)
    return schema


def parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The OpenAPI parameters of a query."""
    schema = schema_of(model)
    required, definitions = schema.get("required", []), schema.get("$defs", {})
    return [
        _parameter(name, field | {"$defs": definitions}, required=name in required)
        for name, field in schema["properties"].items()
    ]


def _parameter(name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """The OpenAPI parameter for a field. A caller omits a parameter instead of sending null.

    The default is in the description, because generated clients send the default of a schema, also with a JSON body,
    where query parameters are refused.
    """
    description, default = schema.pop("description"), schema.pop("default", None)
    if default is not None:
        description += f"; default: {json.dumps(default)}"
    options = [option for option in schema.pop("anyOf", ()) if option != {"type": "null"}]
    schema |= {"anyOf": options} if len(options) > 1 else {}
    schema |= options[0] if len(options) == 1 else {}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}

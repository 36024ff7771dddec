"""Field types of requests that several operations share. All input is strict."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from app.checkpoints.manifest import EVERY_CLASS, Prior
from app.inference.latents import MAX_SEED
from app.inference.sampling import SamplingOptions

# Linear: no two parts of the pattern match the same digits.
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MAX_LABELS = 4096
MAX_NUMBER_LENGTH = 32


class Body(BaseModel):
    """A JSON body: no unknown field, no string for a number, no boolean for an integer, finite numbers only."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Query(BaseModel):
    """A query string: no unknown parameter, finite numbers only. Values are text, see `FromText`."""

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


# The text of a query parameter as a number or a boolean.
IntegerText = BeforeValidator(_from_text("-?[0-9]+", int, "an integer in digits"), json_schema_input_type=int)
NumberText = BeforeValidator(_from_text(NUMBER.pattern, float, "a decimal number"), json_schema_input_type=float)
BooleanText = BeforeValidator(
    _from_text("true|false", lambda text: text == "true", "true or false"), json_schema_input_type=bool
)


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
ModelName = Annotated[str, Field(min_length=1, max_length=64, examples=["cgan"])]
Latent = Annotated[list[float], Field(min_length=1, max_length=4096)]
Scale = Annotated[int, Field(ge=1, le=16, description="enlarges PNGs by this factor")]
ScaleText = Annotated[Scale, IntegerText]
ClassText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_class)]
ClassName = Annotated[ClassText, BeforeValidator(_name, json_schema_input_type=str | int)]
Label = Annotated[
    str | list[str], PlainValidator(_label, json_schema_input_type=Literal["balanced"] | str | int | list[str | int])
]
PriorName = Annotated[
    Prior, Field(description="distribution of latents; the default is the first one that the model lists")
]
Temperature = Annotated[
    float, Field(gt=0, le=2, description="scales the noise of a VAE; below 1 images are more typical and less diverse")
]
Truncation = Annotated[
    float, Field(gt=0, le=10, description="truncates the noise of a GAN at this many standard deviations")
]
NormalizeText = Annotated[
    bool,
    Field(description="center, scale and invert uploads as the manifest of the model says; false only resizes"),
    BooleanText,
]


class SampledBody(Body):
    """A JSON body with sampling options."""

    label: Label | None = Field(
        None,
        description="class name; or a list of them, taken in turn; or `balanced`, all classes in turn. By default the "
        "class of each image is drawn from seed and index",
        examples=["balanced", "3", ["3", "8"]],
    )
    prior: PriorName | None = None
    temperature: Temperature | None = None
    truncation: Truncation | None = None

    @property
    def options(self) -> SamplingOptions:
        """The sampling options."""
        return SamplingOptions(self.label, self.prior, self.temperature, self.truncation)


def check_last_index(first: int, count: int) -> None:
    """Raises ValueError if the index of the last image has no exact JSON number."""
    if first + count - 1 > MAX_SEED:
        raise ValueError("first + n - 1 must not exceed 2^53 - 1")


def parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The OpenAPI parameters of a query."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema["properties"].items()
    ]

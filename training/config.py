"""The choices of a command, and those of a training run that all families share. Each family adds its own."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

DATASET_PATTERN = r"^(mnist|fashion-mnist|folder:.+)$"
DATASET_FORMS = "mnist, fashion-mnist, or folder:PATH, a folder that holds a folder of images for each class"

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# The description of an option whose default depends on the family.
EVALUATE_EVERY = "epochs between measurements of quality; 0: never, and the last epoch is exported"


class Choices(BaseModel):
    """The choices of a command."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any) -> Any:
        """Refuse integers that JSON readers would round, and text that is no UTF-8 or has a NUL character."""
        if isinstance(value, int) and value >= 2**53:
            raise ValueError("Input should be less than 2**53")
        if isinstance(value, str | Path):
            check_text(str(value))
        return value


def check_text(text: str) -> None:
    """Raises ValueError for text that is no UTF-8, as paths may be, or has a NUL character."""
    if "\0" in text:
        raise ValueError("has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None


class TrainConfig(Choices):
    """The choices of a run. The manifest of a checkpoint records its own; `make train` has the current recipes."""

    family: str
    name: str = Field(pattern=NAME_PATTERN)
    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=2)
    dataset: str = Field("mnist", pattern=DATASET_PATTERN, description=DATASET_FORMS)
    seed: int = Field(0, ge=0)
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="per step, of the exported weights; lower in the first steps"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    save_steps: int | None = Field(None, ge=1, description="also save the state after this number of steps")
    save_minutes: float = Field(10.0, ge=0, description="also save the state within an epoch; 0: only after epochs")
    evaluate_every: int = Field(1, ge=0, description=EVALUATE_EVERY)
    tensorboard: bool = Field(True, description="write events for TensorBoard")
    note: str | None = Field(None, description="a sentence for the card, for example on earlier runs that failed")
    train_images: int | None = Field(None, ge=1, description="use only the first images")
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    models_dir: Path = Path("models")

    @model_validator(mode="before")
    @classmethod
    def _name_run(cls, values: Any) -> Any:
        """Add the default name with the data set, unless it is MNIST."""
        if not isinstance(values, dict) or "name" in values:
            return values
        name, dataset = cls.default_name(values), str(values.get("dataset", "mnist"))
        if dataset != "mnist":
            slug = re.sub(r"[^a-z0-9_-]+", "-", Path(dataset).name.lower().removeprefix("folder:")).strip("-")
            name = f"{name}-{slug or 'folder'}"[:64]
        return values | {"name": name}

    @classmethod
    def default_name(cls, values: dict[str, Any]) -> str:  # noqa: ARG003 - of those that a subclass looks at
        """The name of a run on MNIST with these choices, which are not validated yet."""
        return str(cls.model_fields["name"].default)

    def learned_images(self, count: int) -> int:
        """How many of `count` training images, the first ones, a run learns from."""
        return min(count, self.train_images or count)

    def epoch_steps(self, count: int) -> int:
        """The number of steps of an epoch on `count` training images."""
        return self.learned_images(count) // self.batch_size

    @property
    def run_dir(self) -> Path:
        """The directory of the state, curves and previews of this run."""
        return self.runs_dir / self.name


class BadConfigFile(ValueError):
    """The file cannot be read or parsed, or has a choice that is not valid."""


def read_config_file(path: Path, config: type[TrainConfig]) -> dict[str, Any]:
    """Choices by name, from a `.toml` file or from the `config.json` of a run.

    Types are strict, unlike those of flags: true is not 1, and "1" is not 1. Raises BadConfigFile.
    """
    if path.suffix not in {".toml", ".json"}:
        raise BadConfigFile(f"{path} is neither .toml nor .json")
    if path.exists() and not path.is_file():
        raise BadConfigFile(f"{path} is not a file")
    try:
        text = path.read_text("utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_distinct)
        canonical = json.dumps(values, default=str)  # dates of TOML become text
    except OSError as error:
        raise BadConfigFile(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, JSON, UTF-8, and integers of thousands of digits
        raise BadConfigFile(f"{path} is not {path.suffix.removeprefix('.').upper()}: {error}") from error
    try:
        config.model_validate_json(canonical, strict=True)
    except ValidationError as error:
        raise BadConfigFile(": ".join([str(path), *first_mistake(error)])) from error
    assert isinstance(values, dict), "it has just been validated"
    return values


def first_mistake(error: ValidationError) -> list[str]:
    """The name of the first choice that is not valid, if there is one, and the cause."""
    first = error.errors(include_input=False, include_url=False)[0]
    return [*map(str, first["loc"][:1]), first["msg"].removeprefix("Value error, ")]


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. Raises ValueError for a repeated key, of which `json` keeps the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is repeated")
    return values

"""The choices of a training run that all families share, and their files. Each family adds its own choices."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DATASET_PATTERN = r"^(mnist|fashion-mnist|folder:.+)$"
DATASET_FORMS = "mnist, fashion-mnist, or folder:PATH, a folder that holds a folder of images for each class"

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class TrainConfig(BaseModel):
    """The choices of a run. `make train` has the values of the shipped checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    family: str
    name: str = Field(pattern=NAME_PATTERN)
    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=2)
    dataset: str = Field("mnist", pattern=DATASET_PATTERN, description=DATASET_FORMS)
    seed: int = Field(0, ge=0, lt=2**53)
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="per step, of the exported weights; lower in the first steps"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    save_steps: int | None = Field(None, ge=1, description="also save the state after this number of steps")
    save_minutes: float = Field(10.0, ge=0, description="also save the state within an epoch; 0: only after epochs")
    evaluate_every: int = Field(
        1, ge=0, description="epochs between measurements of quality; 0: never, and the last epoch is exported"
    )
    tensorboard: bool = Field(True, description="write events for TensorBoard")
    train_images: int | None = Field(None, ge=1, description="use only the first images")
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    models_dir: Path = Path("models")

    @model_validator(mode="before")
    @classmethod
    def _name_after_data(cls, values: Any) -> Any:
        """Add the data set to the default name, unless it is MNIST."""
        if not isinstance(values, dict) or "name" in values or values.get("dataset", "mnist") == "mnist":
            return values
        data = Path(str(values["dataset"])).name.lower()
        slug = re.sub(r"[^a-z0-9_-]+", "-", data.removeprefix("folder:")).strip("-")
        return values | {"name": f"{cls.model_fields['name'].default}-{slug or 'folder'}"[:64]}

    @property
    def run_dir(self) -> Path:
        """The directory of the state, curves and previews of this run."""
        return self.runs_dir / self.name


class BadConfigFile(ValueError):
    """The file cannot be read or parsed."""


def read_config_file(path: Path) -> dict[str, Any]:
    """Options by name, not validated, from a `.toml` file or from the `config.json` of a run. Raises BadConfigFile."""
    if path.suffix not in {".toml", ".json"}:
        raise BadConfigFile(f"{path} is neither .toml nor .json")
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise BadConfigFile(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML, JSON and UTF-8
        raise BadConfigFile(f"{path} is not {path.suffix.removeprefix('.').upper()}: {error}") from error
    if not isinstance(values, dict):
        raise BadConfigFile(f"{path} does not hold an object")
    return values

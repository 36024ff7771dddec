"""What a checkpoint ships for people beside its card: pictures, and the history of its training. All is optional."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypeAliasType

from app.checkpoints.store import CheckpointError, first_fault

# The file of a picture is `NAME.png`.
PictureName = TypeAliasType(
    "PictureName",
    Literal["samples", "upscaled", "reconstructions", "neighbours", "traversals", "curves", "film", "examples"],
)
NAMES: tuple[PictureName, ...] = get_args(PictureName.__value__)
HISTORY = "history.json"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Files stay in memory, so that they match the loaded weights whatever is written to the folder later.
MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and the SHA-256 of its bytes."""

    content: bytes
    digest: str


class History(BaseModel):
    """The epochs of a training run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: tuple[dict[str, float], ...] = Field(
        min_length=1,
        description="in order, of each `epoch` its mean losses, and its figures where it was measured",
        examples=[[{"epoch": 1, "negative_elbo": 160.1, "frechet_distance": 25.7}]],
    )
    exported: int = Field(gt=0, description="epoch of the weights, counted from 1")
    film: tuple[int, ...] = Field(
        (), description="epochs whose images the picture `film` has: frames of equal height, from above"
    )

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if [row.get("epoch") for row in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise ValueError("epochs are counted from 1")
        if not {self.exported, *self.film} <= set(range(1, len(self.epochs) + 1)):
            raise ValueError("the exported epoch and those of the film are epochs of the run")
        return self


def read_pictures(folder: Path) -> dict[PictureName, Picture]:
    """The pictures in the folder of a checkpoint. Raises CheckpointError for a file that is not a small PNG."""
    pictures = {}
    for name in NAMES:
        path = folder / f"{name}.png"
        content = _read(path)
        if content is None:
            continue
        if not content.startswith(PNG_SIGNATURE):
            raise CheckpointError(path, "is not a PNG")
        pictures[name] = Picture(content, hashlib.sha256(content).hexdigest())
    return pictures


def read_history(folder: Path) -> History | None:
    """The history in the folder of a checkpoint, None if there is none. Raises CheckpointError."""
    path = folder / HISTORY
    content = _read(path)
    if content is None:
        return None
    try:
        return History.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointError(path, first_fault(error)) from error


def _read(path: Path) -> bytes | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise CheckpointError(path, f"has more than {MAX_BYTES} bytes")
    return content

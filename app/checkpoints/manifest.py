"""The contract between training and serving: what `manifest.json` says of a checkpoint.

Training writes it, the service reads it. Knows neither TorchScript nor HTTP.
"""

import base64
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Capability = Literal["generate", "decode", "encode", "discriminate"]
Precision = Literal["float32", "bfloat16"]

# What makes images, and may therefore compute in a lower precision than float32: the error can be seen, or not.
IMAGING: frozenset[Capability] = frozenset({"generate", "decode"})
# The largest difference from float32 that a pixel in [0, 1] may show in any other precision.
PIXEL_BOUND = 2 / 255

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Deviation(_Part):
    """How far the images of an archive are from those of the float32 one, for the same latents."""

    images: int = Field(gt=0, description="compared, of seeded latents")
    largest: float = Field(ge=0, le=PIXEL_BOUND, description="difference of any pixel, of 0 to 1")
    mean: float = Field(ge=0, description="difference over all pixels, of 0 to 1")


class Archive(_Part):
    """A TorchScript file beside the manifest. Inputs and outputs are float32 whatever it computes in.

    Below float32 in precision are only the capabilities that make images.
    """

    file: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*\.pt$", description="a name, never a path")
    digest: str = Field(pattern=DIGEST_PATTERN, description="SHA-256 of the file")
    bytes: int = Field(gt=0)
    deviation: Deviation | None = Field(None, description="null for float32")


class Normalization(_Part):
    """How a photo or a drawing is brought to the form of the training images, as MNIST was made."""

    box: int = Field(gt=0, description="pixels of the longer side of the digit's bounding box")
    center: Literal["mass"] = Field("mass", description="what comes to the centre of the image")


class ImageForm(_Part):
    """Images the networks take and give: ink bright on dark ground."""

    shape: tuple[Literal[1], int, int] = Field(description="channels, height, width")
    range: tuple[Literal[0], Literal[1]] = (0, 1)
    normalization: Normalization | None = Field(description="null: an upload is only resized")

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.shape[1] * self.shape[2]

    @model_validator(mode="after")
    def _square(self) -> Self:
        _, height, width = self.shape
        if not 1 <= height == width <= 512:
            raise ValueError("images are square, 1 to 512 pixels a side")
        return self


class DatasetUsed(_Part):
    """What the model was trained on."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    train_images: int = Field(gt=0)


class TrainingRecord(_Part):
    """What it takes to train the same again."""

    config: dict[str, Any]
    seed: int
    epochs: int = Field(gt=0, description="finished when the checkpoint was exported")
    parameters: dict[str, int] = Field(description="of each shipped network")
    losses: dict[str, float] = Field(description="means over the last epoch")
    versions: dict[str, str]
    source_commit: str


class Figure(_Part):
    """One measured figure between its floor and its ceiling; lower is better."""

    value: float
    unit: str
    floor: float = Field(description="what a perfect model would get")
    ceiling: float = Field(description="what a useless one gets")


class Quality(_Part):
    """Measured quality under one named protocol."""

    protocol: str
    figures: dict[str, Figure]


class TensorRecord(_Part):
    """A float32 tensor, little-endian, in base64."""

    shape: tuple[int, ...]
    data: str = Field(repr=False)

    @classmethod
    def of(cls, array: NDArray[np.float32]) -> Self:
        """Record an array of any shape."""
        data = base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()
        return cls(shape=array.shape, data=data)

    def array(self) -> NDArray[np.float32]:
        """The array again. Raises ValueError when shape and data disagree."""
        flat = np.frombuffer(base64.b64decode(self.data, validate=True), dtype="<f4")
        return flat.astype(np.float32).reshape(self.shape)


class Golden(_Part):
    """Inputs of a capability and what it gave for them when it was exported."""

    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    tolerance: float = Field(gt=0, le=0.01, description="largest absolute difference another machine may show")


class Manifest(_Part):
    """Everything the service needs of a checkpoint, and what a person wants to know of it."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN, description="also the directory's name")
    family: str = Field(pattern=NAME_PATTERN)
    format: Literal["torchscript"] = "torchscript"
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    latent_dim: int = Field(gt=0, le=4096)
    image: ImageForm
    classes: tuple[str, ...] = Field(description="of the data; empty where it has none")
    archives: dict[Precision, Archive]
    dataset: DatasetUsed
    training: TrainingRecord
    quality: Quality
    golden: dict[Capability, Golden]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "float32" not in self.archives:
            raise ValueError("archives needs a float32 entry")
        if any((archive.deviation is None) != (key == "float32") for key, archive in self.archives.items()):
            raise ValueError("archives other than float32, and only they, need a deviation")
        if set(self.golden) != set(self.capabilities):
            raise ValueError("golden needs one entry for each capability")
        latent, image = (self.latent_dim,), self.image.shape
        forms: dict[Capability, tuple[list[tuple[int, ...]], list[tuple[int, ...]]]] = {
            "generate": ([latent], [image]),
            "decode": ([latent], [image]),
            "encode": ([image], [latent, latent]),
            "discriminate": ([image], [()]),
        }
        for capability, golden in self.golden.items():
            rows = {record.shape[0] if record.shape else 0 for record in (*golden.inputs, *golden.outputs)}
            shapes = tuple([record.shape[1:] for record in side] for side in (golden.inputs, golden.outputs))
            if len(rows) != 1 or rows == {0} or shapes != forms[capability]:
                raise ValueError(f"golden rows of {capability} have other shapes than latent_dim and image name")
        return self

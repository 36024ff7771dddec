"""The contract between training and serving: what `manifest.json` says of a checkpoint.

Training writes it, the service reads it. Knows neither TorchScript nor HTTP.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Capability = Literal["generate", "decode", "encode", "discriminate", "prior"]
Precision = Literal["float32", "bfloat16"]
Prior = Literal["fitted", "normal"]
Control = Literal["temperature", "truncation"]
Side = tuple[tuple[int, ...], ...]  # shapes of the inputs or of the outputs of a capability, each without its rows

# What makes images, and may therefore compute in a lower precision than float32: the error can be seen, or not.
IMAGING: frozenset[Capability] = frozenset({"generate", "decode"})
# The largest difference from float32 that a pixel in [0, 1] may show in any other precision.
PIXEL_BOUND = 2 / 255

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
# Callers list classes with commas between them, in a query, and ask for all of them by the word.
CLASS_PATTERN = re.compile(r"[^,\x00-\x1f\x7f]{1,64}")
EVERY_CLASS = "balanced"


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
    epoch: int | None = Field(None, gt=0, description="whose weights ship: the best measured; null: the last")
    steps: int = Field(0, ge=0, description="of the epoch after it, never finished, that the weights have learned in")
    parameters: dict[str, int] = Field(description="of each shipped network")
    losses: dict[str, float] = Field(description="means over that epoch")
    versions: dict[str, str]
    source_commit: str
    processes: int = Field(1, gt=0, description="that shared the run")


class Figure(_Part):
    """One measured figure beside what a perfect model and what useless ones would get."""

    model_config = ConfigDict(allow_inf_nan=False)

    value: float = Field(description="mean over the seeds")
    deviation: float | None = Field(None, ge=0, description="standard deviation over the seeds; null without any")
    standard_error: float | None = Field(None, ge=0, description="over test images, where they are a sample")
    unit: str
    better: Literal["lower", "higher", "floor"] | None = Field(description="floor: near it; null: neither")
    floor: float | None = Field(None, description="what real images get, or a perfect model; null where unknown")
    ceilings: dict[str, float] = Field({}, description="what useless models get, by name")


class ControlEffect(_Part):
    """What one way of drawing latents does to figures, measured on fewer images than those of the protocol."""

    prior: Prior
    temperature: float
    truncation: float | None
    figures: dict[str, float]


class Quality(_Part):
    """Measured quality under one named protocol."""

    protocol: str
    extractor: str | None = Field(
        pattern=DIGEST_PATTERN, description="SHA-256 of the classifier's weights; null: figures of features left out"
    )
    images: int = Field(gt=0, description="generated for each seed")
    seeds: tuple[int, ...] = Field(min_length=1)
    figures: dict[str, Figure]
    control_images: int = Field(gt=0, description="generated for each effect of a control")
    controls: tuple[ControlEffect, ...]


LITTLE_ENDIAN = {"float32": "<f4", "int64": "<i8"}


class TensorRecord(_Part):
    """A tensor, little-endian, in base64: rows in float32, labels in int64."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"] = "float32"
    data: str = Field(repr=False)

    @classmethod
    def of(cls, array: NDArray[np.float32] | NDArray[np.int64]) -> Self:
        """Record an array of any shape."""
        dtype: Literal["float32", "int64"] = "int64" if array.dtype == np.int64 else "float32"
        data = base64.b64encode(np.ascontiguousarray(array, dtype=LITTLE_ENDIAN[dtype]).tobytes()).decode()
        return cls(shape=array.shape, dtype=dtype, data=data)

    def array(self) -> NDArray[Any]:
        """The array again, of `dtype`. Raises ValueError when shape and data disagree."""
        flat = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=LITTLE_ENDIAN[self.dtype])
        return flat.astype(self.dtype).reshape(self.shape)


class Golden(_Part):
    """Inputs of a capability and what it gave for them when it was exported; labels are the second input."""

    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    tolerance: float = Field(gt=0, le=0.01, description="largest absolute difference another machine may show")


def check_classes(classes: Sequence[str]) -> None:
    """Raises ValueError for names of classes that nobody could ask for, or tell apart."""
    if len(set(classes)) != len(classes) or EVERY_CLASS in classes:
        raise ValueError(f"classes have different names, none of which is {EVERY_CLASS!r}")
    if not all(CLASS_PATTERN.fullmatch(name) for name in classes):
        raise ValueError("the name of a class has 1 to 64 characters, none of which is a comma or a control character")


def with_checksum(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON fields and, as `checksum`, the SHA-256 of the others, however they are indented or ordered in a file."""
    others = {name: value for name, value in fields.items() if name != "checksum"}
    canonical = json.dumps(others, sort_keys=True, separators=(",", ":")).encode()
    return others | {"checksum": hashlib.sha256(canonical).hexdigest()}


class Manifest(_Part):
    """Everything the service needs of a checkpoint, and what a person wants to know of it.

    A file holds one field more, `checksum`, which is verified whenever one is read and belongs to no manifest in
    memory: most of a manifest could change by a bit and still make sense. A file written by hand may leave it out.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN, description="also the directory's name")
    family: str = Field(pattern=NAME_PATTERN)
    format: Literal["torchscript"] = "torchscript"
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    conditional: bool = Field(False, description="generate, decode, encode and discriminate take labels")
    latent_dim: int = Field(gt=0, le=4096)
    priors: tuple[Prior, ...] = Field(("normal",), min_length=1, description="of latents; the first is the default")
    noise_dim: int = Field(
        default_factory=lambda earlier: earlier["latent_dim"], description="numbers that a latent is drawn from"
    )
    sampling: tuple[Control, ...] = Field((), description="controls of how latents are drawn")
    image: ImageForm
    classes: tuple[str, ...] = Field(description="of the data, by label; empty where it has none")
    archives: dict[Precision, Archive]
    dataset: DatasetUsed
    training: TrainingRecord
    quality: Quality | None = Field(None, description="null until it has been measured")
    golden: dict[Capability, Golden]

    @model_validator(mode="before")
    @classmethod
    def _intact(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "checksum" not in fields:
            return fields
        if fields != with_checksum(fields):
            raise ValueError("its checksum is of other content; a manifest changed by hand goes without one")
        return {name: value for name, value in fields.items() if name != "checksum"}

    def file_content(self) -> bytes:
        """What `manifest.json` holds: the fields and their checksum."""
        return json.dumps(with_checksum(json.loads(self.model_dump_json())), indent=2).encode() + b"\n"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "float32" not in self.archives:
            raise ValueError("archives needs a float32 entry")
        if any((archive.deviation is None) != (key == "float32") for key, archive in self.archives.items()):
            raise ValueError("archives other than float32, and only they, need a deviation")
        if set(self.golden) != set(self.capabilities):
            raise ValueError("golden needs one entry for each capability")
        for capability, golden in self.golden.items():
            rows = {record.shape[0] if record.shape else 0 for record in (*golden.inputs, *golden.outputs)}
            shapes = tuple(tuple(record.shape[1:] for record in side) for side in (golden.inputs, golden.outputs))
            if len(rows) != 1 or rows == {0} or shapes != self.shapes(capability):
                raise ValueError(f"golden rows of {capability} have other shapes than the manifest says it takes")
            dtypes = [record.dtype for record in (*golden.inputs, *golden.outputs)]
            if dtypes != ["float32", *["int64"] * (len(golden.inputs) - 1), *["float32"] * len(golden.outputs)]:
                raise ValueError(f"golden rows of {capability} are float32, and their labels int64")
        return self

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        check_classes(self.classes)
        fitted = "fitted" in self.priors
        if (self.conditional or fitted) and not self.classes:
            raise ValueError("a model with labels needs classes")
        if len(set(self.priors)) != len(self.priors) or fitted != ("prior" in self.capabilities):
            raise ValueError("priors differ, and the capability prior goes with the fitted one")
        if self.noise_dim != self.latent_dim + fitted:
            raise ValueError("noise_dim is latent_dim, and one more with a fitted prior")
        return self

    def takes_labels(self, capability: Capability) -> bool:
        """Whether a capability takes the rows' labels, int64, as its second input."""
        return self.conditional or capability == "prior"

    @property
    def has_labels(self) -> bool:
        """Whether images can be asked for by label."""
        return any(self.gives_labels(prior) for prior in self.priors)

    def gives_labels(self, prior: Prior) -> bool:
        """Whether images of latents drawn from `prior` have labels."""
        return self.conditional or prior == "fitted"

    def shapes(self, capability: Capability) -> tuple[Side, Side]:
        """The shapes of a row of each input and each output of a capability."""
        latent, image = (self.latent_dim,), self.image.shape
        forms: dict[Capability, tuple[Side, Side]] = {
            "generate": ((latent,), (image,)),
            "decode": ((latent,), (image,)),
            "encode": ((image,), (latent, latent)),
            "discriminate": ((image,), ((),)),
            "prior": (((self.noise_dim,),), (latent,)),
        }
        inputs, outputs = forms[capability]
        return (*inputs, ()) if self.takes_labels(capability) else inputs, outputs

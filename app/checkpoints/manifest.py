"""The manifest of a checkpoint: the contract between training, which writes it, and the service, which reads it."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from typing_extensions import TypeAliasType

from app.checkpoints.capabilities import CAPABILITIES, CapabilityName, Symbol

# With names in JSON schemas, so that clients have one type of each.
Precision = TypeAliasType("Precision", Literal["float32", "bfloat16"])
Prior = TypeAliasType("Prior", Literal["fitted", "normal"])
Control = TypeAliasType("Control", Literal["temperature", "truncation"])

# Largest difference of a pixel in [0, 1] between the float32 archive and one of lower precision.
PIXEL_BOUND = 2 / 255

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
# A query lists class names with commas between them; "balanced" asks for all classes.
CLASS_PATTERN = re.compile(r"[^,\x00-\x1f\x7f]{1,64}")
EVERY_CLASS = "balanced"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Deviation(_Part):
    """Differences between the images of a low-precision archive and of the float32 one, for the same latents."""

    images: int = Field(gt=0, description="number of images compared")
    largest: float = Field(ge=0, le=PIXEL_BOUND, description="largest difference of a pixel in [0, 1]")
    mean: float = Field(ge=0, description="mean difference of the pixels in [0, 1]")


class Archive(_Part):
    """A TorchScript file beside the manifest. Its inputs and outputs are float32 in every precision."""

    file: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*\.pt$", description="a name, never a path")
    digest: str = Field(pattern=DIGEST_PATTERN, description="SHA-256 of the file")
    bytes: int = Field(gt=0)
    deviation: Deviation | None = Field(None, description="null for float32")


class Normalization(_Part):
    """How an upload is normalized to the form of the training images, after the procedure of MNIST."""

    box: int = Field(gt=0, description="longer side of the digit's bounding box, in pixels")
    center: Literal["mass"] = Field("mass", description="the point placed at the centre of the image")


def _integers(count: int) -> WithJsonSchema:
    """The JSON schema of a tuple. Not `prefixItems`, which client generators take for a union of types."""
    return WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": count, "maxItems": count})


class ImageForm(_Part):
    """The form of an image: ink bright on dark ground."""

    shape: Annotated[tuple[Literal[1], int, int], _integers(3)] = Field(description="channels, height, width")
    range: Annotated[tuple[Literal[0], Literal[1]], _integers(2)] = Field((0, 1), description="of the pixels")
    normalization: Normalization | None = Field(description="null: uploads are only resized")

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.shape[1] * self.shape[2]

    @model_validator(mode="after")
    def _square(self) -> Self:
        _, height, width = self.shape
        if not 1 <= height == width <= 512:
            raise ValueError("images are square, 1 to 512 pixels a side")
        return self


class DatasetUsed(_Part):
    """The data set that the model was trained on."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    train_images: int = Field(gt=0)


class Figure(_Part):
    """One measured figure, its floor and its ceilings."""

    model_config = ConfigDict(allow_inf_nan=False)

    value: float = Field(description="mean over the seeds")
    deviation: float | None = Field(None, ge=0, description="standard deviation over the seeds, null for one seed")
    standard_error: float | None = Field(None, ge=0, description="over the test images, if they are a sample")
    unit: str
    better: Literal["lower", "higher", "floor"] | None = Field(description="floor: close to the floor; null: neither")
    floor: float | None = Field(None, description="the figure of real images or of a perfect model, null if unknown")
    floor_deviation: float | None = Field(
        None, ge=0, description="standard deviation of the floor over disjoint draws of real images"
    )
    ceilings: dict[str, float] = Field({}, description="the figures of useless models, by name")


class TrainingRecord(_Part):
    """Everything needed to repeat the training run."""

    config: dict[str, Any]
    seed: int
    epochs: int = Field(gt=0, description="epochs completed at export")
    epoch: int | None = Field(None, gt=0, description="epoch of the exported weights, the best one; null: the last")
    steps: int = Field(0, ge=0, description="optimizer steps after that epoch, where the export fell inside an epoch")
    parameters: dict[str, int] = Field(description="number of parameters of each exported network")
    losses: dict[str, float] = Field(description="mean losses of that epoch")
    versions: dict[str, str]
    source_commit: str
    processes: int = Field(1, gt=0, description="number of processes of the run")
    cpu_minutes: float | None = Field(None, ge=0, description="CPU time of the whole run, with its measurements")
    figures: dict[str, Figure] = Field({}, description="measured at the export, on networks that no archive holds")
    contrast: float = Field(1, gt=0, description="factor on the pixel logits of `generate`, see `training.contrast`")


class ControlEffect(_Part):
    """Figures under one setting of the sampling controls, measured on `control_images` images."""

    prior: Prior
    temperature: float
    truncation: float | None
    figures: dict[str, float]


class Quality(_Part):
    """Measured quality under one named protocol."""

    protocol: str
    extractor: str | None = Field(
        pattern=DIGEST_PATTERN,
        description="SHA-256 of the classifier's weights; null: figures that need features are left out",
    )
    images: int = Field(gt=0, description="generated images for each seed")
    seeds: tuple[int, ...] = Field(min_length=1)
    figures: dict[str, Figure]
    control_images: int = Field(gt=0, description="generated images for each setting of the controls")
    controls: tuple[ControlEffect, ...]


LITTLE_ENDIAN = {"float32": "<f4", "int64": "<i8"}


class TensorRecord(_Part):
    """A tensor in base64, little-endian."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"] = "float32"
    data: str = Field(repr=False)

    @classmethod
    def of(cls, array: NDArray[np.float32] | NDArray[np.int64]) -> Self:
        """The record of an array of any shape."""
        dtype: Literal["float32", "int64"] = "int64" if array.dtype == np.int64 else "float32"
        data = base64.b64encode(np.ascontiguousarray(array, dtype=LITTLE_ENDIAN[dtype]).tobytes()).decode()
        return cls(shape=array.shape, dtype=dtype, data=data)

    def array(self) -> NDArray[Any]:
        """The recorded array. Raises ValueError when shape and data disagree."""
        flat = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=LITTLE_ENDIAN[self.dtype])
        return flat.astype(self.dtype).reshape(self.shape)


class Golden(_Part):
    """Inputs of a capability and its float32 outputs at export. Labels are the last input."""

    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    tolerance: float = Field(gt=0, le=0.01, description="largest absolute difference allowed on another machine")


def check_classes(classes: Sequence[str]) -> None:
    """Raises ValueError for class names that are ambiguous or cannot be requested."""
    if len(set(classes)) != len(classes) or EVERY_CLASS in classes:
        raise ValueError(f"class names must be distinct and must not be {EVERY_CLASS!r}")
    if not all(CLASS_PATTERN.fullmatch(name) for name in classes):
        raise ValueError("a class name has 1 to 64 characters without commas and control characters")


def with_checksum(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with `checksum`, the SHA-256 of their canonical JSON, added."""
    others = {name: value for name, value in fields.items() if name != "checksum"}
    canonical = json.dumps(others, sort_keys=True, separators=(",", ":")).encode()
    return others | {"checksum": hashlib.sha256(canonical).hexdigest()}


class PublicManifest(_Part):
    """A manifest without its golden rows, as `GET /models/{name}` shows it."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN, description="also the name of the directory")
    family: str = Field(pattern=NAME_PATTERN)
    format: Literal["torchscript"] = "torchscript"
    capabilities: tuple[CapabilityName, ...] = Field(min_length=1)
    conditional: bool = Field(False, description="whether the networks take labels")
    latent_dim: int | None = Field(None, gt=0, le=4096, description="null for a model without latents")
    priors: tuple[Prior, ...] = Field(("normal",), min_length=1, description="of latents; the first is the default")
    noise_dim: int | None = Field(
        default_factory=lambda fields: fields.get("latent_dim"),
        description="normal numbers that a latent is drawn from",
    )
    sampling: tuple[Control, ...] = Field((), description="sampling controls that the model supports")
    smooth_latents: bool = Field(
        True, description="whether images change gradually with their latents, so that interpolating makes sense"
    )
    sequential: bool = Field(
        False, description="whether a pass has hundreds of steps, as of a pixel at a time; such passes take long"
    )
    image: ImageForm = Field(description="images that the model makes, or takes if it makes none")
    input_image: ImageForm | None = Field(None, description="images that the model takes; null: the same form")
    classes: tuple[str, ...] = Field(description="class names by label; empty for unlabelled data")
    archives: dict[Precision, Archive]
    dataset: DatasetUsed
    training: TrainingRecord
    quality: Quality | None = Field(None, description="null until measured")

    @model_validator(mode="after")
    def _check_archives(self) -> Self:
        if "float32" not in self.archives:
            raise ValueError("archives needs a float32 entry")
        if any((archive.deviation is None) != (key == "float32") for key, archive in self.archives.items()):
            raise ValueError("every archive but the float32 one needs a deviation")
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        check_classes(self.classes)
        fitted = "fitted" in self.priors
        if (self.conditional or fitted or "classify" in self.capabilities) and not self.classes:
            raise ValueError("a model with labels needs classes")
        if len(set(self.priors)) != len(self.priors) or fitted != ("prior" in self.capabilities):
            raise ValueError("priors must differ, and the fitted prior needs the capability prior")
        if self.latent_dim is not None and self.noise_dim != self.latent_dim + fitted:
            raise ValueError("noise_dim is latent_dim, plus one for a fitted prior")
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if "upscale" in self.capabilities and self.image.shape[1] % self.upload_form.shape[1]:
            raise ValueError("upscale multiplies the sides of an image by an integer")
        return self

    def takes_labels(self, capability: str) -> bool:
        """Whether the last input of a capability is the labels of the rows."""
        return CAPABILITIES[capability].takes_labels(conditional=self.conditional)

    def inputs(self, capability: str) -> tuple[Symbol, ...]:
        """The inputs of a capability, labels included."""
        return CAPABILITIES[capability].inputs_with_labels(conditional=self.conditional)

    @staticmethod
    def dtype(symbol: Symbol) -> Literal["float32", "int64"]:
        """The data type of the rows of an input or an output."""
        return "int64" if symbol is Symbol.LABEL else "float32"

    def shape(self, symbol: Symbol) -> tuple[int, ...]:
        """The shape of one row of an input or an output. Raises ValueError where the model has no such rows."""
        match symbol:
            case Symbol.IMAGE:
                return self.image.shape
            case Symbol.INPUT_IMAGE:
                return self.upload_form.shape
            case Symbol.PROBABILITIES:
                return (len(self.classes),)
            case Symbol.LATENT | Symbol.NOISE:
                width = self.latent_dim if symbol is Symbol.LATENT else self.noise_dim
                if width is None:
                    raise ValueError("a model with latents needs latent_dim")
                return (width,)
        return ()

    @property
    def upload_form(self) -> ImageForm:
        """The form that uploads are brought to."""
        return self.input_image or self.image

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of the images that the model takes: channels, height, width."""
        return self.upload_form.shape

    @property
    def has_labels(self) -> bool:
        """Whether images can be requested by label."""
        return any(self.gives_labels(prior) for prior in self.priors)

    def gives_labels(self, prior: Prior) -> bool:
        """Whether images of latents drawn from `prior` have labels."""
        return self.conditional or prior == "fitted"


class Manifest(PublicManifest):
    """Everything the service needs to know of a checkpoint, and what a person wants to know.

    The file has one more field, `checksum`, which is verified when the file is read. A manifest written by hand may
    leave it out.
    """

    golden: dict[CapabilityName, Golden]

    @model_validator(mode="before")
    @classmethod
    def _verify_checksum(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "checksum" not in fields:
            return fields
        if fields != with_checksum(fields):
            raise ValueError("the checksum does not match; remove it from a manifest that was edited by hand")
        return {name: value for name, value in fields.items() if name != "checksum"}

    def file_content(self) -> bytes:
        """The content of `manifest.json`, with the checksum."""
        return json.dumps(with_checksum(json.loads(self.model_dump_json())), indent=2).encode() + b"\n"

    @model_validator(mode="after")
    def _check_golden(self) -> Self:
        if set(self.golden) != set(self.capabilities):
            raise ValueError("golden needs one entry for each capability")
        for capability, golden in self.golden.items():
            for records, symbols in (
                (golden.inputs, self.inputs(capability)),
                (golden.outputs, CAPABILITIES[capability].outputs),
            ):
                recorded = [(record.dtype, record.shape[1:]) for record in records]
                if recorded != [(self.dtype(symbol), self.shape(symbol)) for symbol in symbols]:
                    raise ValueError(f"the golden rows of {capability} do not have the shapes of the manifest")
            rows = {record.shape[:1] for record in (*golden.inputs, *golden.outputs)}
            if len(rows) != 1 or rows <= {(), (0,)}:
                raise ValueError(f"the golden inputs and outputs of {capability} have different numbers of rows")
        return self

"""The models of the protocol and their tensors."""

import math
from dataclasses import dataclass
from typing import Self

from app import __version__
from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import Manifest
from app.errors import ModelNotFound
from app.inference.engine import Engine
from app.inference.model import Model
from app.open_inference.messages import ModelMetadata, TensorMetadata
from app.open_inference.tensors import DATATYPES

SERVER = {"name": "digits", "version": __version__, "extensions": ["binary_tensor_data"]}
PLATFORM = "pytorch_torchscript"

IMAGES = {Symbol.IMAGE, Symbol.INPUT_IMAGE}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model. Images have no channel axis, and are 8-bit as outputs."""

    name: str
    symbol: Symbol
    shape: tuple[int, ...]  # of a row
    datatypes: tuple[str, ...]  # that an input may have; the first one is in the metadata

    @classmethod
    def of(cls, manifest: Manifest, symbol: Symbol, name: str | None = None) -> Self:
        """The tensor for a symbol of the capability table."""
        shape = manifest.shape(symbol)
        if symbol in IMAGES:
            return cls(name or "image", symbol, shape[1:], ("UINT8", "FP32"))
        return cls(name or symbol.name.lower(), symbol, shape, ("INT64" if symbol is Symbol.LABEL else "FP32",))

    @property
    def datatype(self) -> str:
        """The datatype in the metadata, and that of outputs."""
        return self.datatypes[0]

    @property
    def metadata(self) -> TensorMetadata:
        """The tensor for the metadata of its model."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=[-1, *self.shape])

    def bytes_of(self, rows: int) -> int:
        """The size of an output with this number of rows."""
        return rows * math.prod(self.shape) * DATATYPES[self.datatype].itemsize


@dataclass(frozen=True)
class Servable:
    """A model of the protocol: a capability of a loaded model."""

    model: Model
    capability: str

    @property
    def name(self) -> str:
        """The name that requests use, as in `cgan.generate`."""
        return f"{self.model.name}.{self.capability}"

    @property
    def version(self) -> str:
        """The only version: the digest of the archive."""
        return self.model.provenance.digest

    @property
    def takes_latents(self) -> bool:
        """Whether the capability takes a latent, which a seed can replace."""
        return Symbol.LATENT in CAPABILITIES[self.capability].inputs

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs that the capability needs."""
        manifest = self.model.manifest
        return tuple(Tensor.of(manifest, symbol) for symbol in manifest.inputs(self.capability))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs. If the capability takes latents and the model has labels, they include the labels."""
        manifest, row = self.model.manifest, CAPABILITIES[self.capability]
        names = row.output_names or (None,) * len(row.outputs)
        labelled = self.takes_latents and manifest.has_labels
        return (
            *(Tensor.of(manifest, symbol, name) for symbol, name in zip(row.outputs, names, strict=True)),
            *([Tensor.of(manifest, Symbol.LABEL)] if labelled else []),
        )

    def origin(self, seed: int | None) -> dict[str, int | str]:
        """The parameters of a response: what it depends on besides the request, name and version."""
        provenance = self.model.provenance
        named: dict[str, int | str] = {"precision": provenance.precision, "runtime": provenance.runtime}
        return named if seed is None else named | {"seed": seed}

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata of the model."""
        return ModelMetadata(
            name=self.name,
            versions=[self.version],
            platform=PLATFORM,
            inputs=[tensor.metadata for tensor in self.inputs],
            outputs=[tensor.metadata for tensor in self.outputs],
        )


def find_servable(engine: Engine, name: str, version: str) -> Servable:
    """The model of the protocol with this name and version; an empty version stands for the loaded one.

    Raises ModelNotFound.
    """
    model_name, _, capability = name.rpartition(".")
    model = engine.models.get(model_name)
    if model is None:
        example = next((f"{each.name}.{next(iter(each.networks))}" for each in engine.models.values()), "cgan.generate")
        raise ModelNotFound(f"no such model; a name is MODEL.CAPABILITY, as in {example}, and /models lists both")
    if capability not in model.networks:
        names = ", ".join(f"{model_name}.{each}" for each in model.networks)
        raise ModelNotFound(f"no such model; the capabilities of {model_name} are {names}")
    found = Servable(model, capability)
    if version and version != found.version:
        raise ModelNotFound(f"no such version; {found.name} has only {found.version}")
    return found

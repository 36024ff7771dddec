"""The capability table: what each method of an archive takes and gives.

The manifest, the golden checks, the export, the engine and `/models` read this table and keep no list of their own.
To add a capability, add a row to `CAPABILITIES`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Literal

from pydantic import AfterValidator


class Symbol(Enum):
    """One row of an input or an output. The manifest of a checkpoint gives its shape (`Manifest.shape`)."""

    LATENT = auto()  # float32 (latent_dim,)
    NOISE = auto()  # float32 (noise_dim,), standard normal: what the fitted prior maps to a latent
    IMAGE = auto()  # float32 (1, H, W) in [0, 1], an image as the model makes it
    INPUT_IMAGE = auto()  # float32 (1, H, W) in [0, 1], an image as the model takes it
    LABEL = auto()  # int64 (), the index of a class
    LOGIT = auto()  # float32 ()
    PROBABILITIES = auto()  # float32 (classes,), their sum is 1
    NATS = auto()  # float32 (), a logarithm to the base e


@dataclass(frozen=True)
class Capability:
    """One typed method of an archive. All inputs and outputs have the batch as their first axis.

    labels: whether the method takes a label for each row as its last input.
    tolerance: largest absolute difference between the float32 outputs of two machines.
    low_precision: whether the method may compute below float32, because it makes images and the error is visible.
    output_names: of the outputs for callers, where their symbols do not tell them apart.
    """

    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    tolerance: float
    labels: Literal["if conditional", "always", "never"] = "if conditional"
    low_precision: bool = False
    output_names: tuple[str, ...] = ()

    def takes_labels(self, *, conditional: bool) -> bool:
        """Whether the last input is the labels of the rows, for a model that is conditional or not."""
        return self.labels == "always" or (self.labels == "if conditional" and conditional)

    def inputs_with_labels(self, *, conditional: bool) -> tuple[Symbol, ...]:
        """The inputs, with the labels where the method takes them."""
        return (*self.inputs, Symbol.LABEL) if self.takes_labels(conditional=conditional) else self.inputs


CAPABILITIES: dict[str, Capability] = {
    "generate": Capability((Symbol.LATENT,), (Symbol.IMAGE,), 1e-4, low_precision=True),
    "decode": Capability((Symbol.LATENT,), (Symbol.IMAGE,), 1e-4, low_precision=True),
    # Mean and log-variance of a diagonal Gaussian posterior.
    "encode": Capability(
        (Symbol.INPUT_IMAGE,), (Symbol.LATENT, Symbol.LATENT), 1e-3, output_names=("mean", "log_variance")
    ),
    # A deterministic code.
    "embed": Capability((Symbol.INPUT_IMAGE,), (Symbol.LATENT,), 1e-3),
    "discriminate": Capability((Symbol.IMAGE,), (Symbol.LOGIT,), 1e-3),
    "classify": Capability((Symbol.INPUT_IMAGE,), (Symbol.PROBABILITIES,), 1e-4, labels="never"),
    # The logarithm of the probability of the 8-bit image, or a lower bound of it.
    "log_likelihood": Capability((Symbol.INPUT_IMAGE,), (Symbol.NATS,), 1e-2),
    # A small image to a larger one of the same content.
    "upscale": Capability((Symbol.INPUT_IMAGE,), (Symbol.IMAGE,), 1e-4, labels="never", low_precision=True),
    # The fitted prior: noise to latents of a class.
    "prior": Capability((Symbol.NOISE,), (Symbol.LATENT,), 1e-4, labels="always"),
}


def _known(name: str) -> str:
    if name not in CAPABILITIES:
        raise ValueError(f"a capability is one of {', '.join(CAPABILITIES)}")
    return name


CapabilityName = Annotated[str, AfterValidator(_known)]

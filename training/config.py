"""Every choice of a training run, typed. Knows no networks."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DATASET_PATTERN = r"^(mnist|fashion-mnist|folder:.+)$"
DATASET_FORMS = "mnist, fashion-mnist, or folder:PATH, a folder that holds a folder of images for each class"

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class TrainConfig(BaseModel):
    """What every family's run has. Shipped checkpoints used other values here and there: `make train` has them all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    family: str
    name: str = Field(pattern=NAME_PATTERN)
    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=2)
    dataset: str = Field("mnist", pattern=DATASET_PATTERN, description=DATASET_FORMS)
    seed: int = Field(0, ge=0, lt=2**53)
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the weights that ship, a step; less in the first steps")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    save_steps: int | None = Field(None, ge=1, description="save the state every so many steps, too")
    save_minutes: float = Field(10.0, ge=0, description="save the state as often within an epoch, too; 0: do not")
    evaluate_every: int = Field(1, ge=0, description="epochs between measurements of quality; 0: none, the last ships")
    tensorboard: bool = Field(True, description="write events for TensorBoard")
    train_images: int | None = Field(None, ge=1, description="use only the first so many")
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    models_dir: Path = Path("models")

    @model_validator(mode="before")
    @classmethod
    def _name_after_data(cls, values: Any) -> Any:
        """A run on other data than MNIST, if it has no name, takes one that says so."""
        if not isinstance(values, dict) or "name" in values or values.get("dataset", "mnist") == "mnist":
            return values
        data = Path(str(values["dataset"])).name.lower()
        slug = re.sub(r"[^a-z0-9_-]+", "-", data.removeprefix("folder:")).strip("-")
        return values | {"name": f"{cls.model_fields['name'].default}-{slug or 'folder'}"[:64]}

    @property
    def run_dir(self) -> Path:
        """Where this run keeps its state, curves and samples."""
        return self.runs_dir / self.name


class VariationalConfig(TrainConfig):
    """What the families with an encoder and a decoder have."""

    # The networks are too small for bfloat16 to pay on a CPU.
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    epochs: int = Field(30, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="at the start; it falls to 0 along a cosine")
    beta: float = Field(1.0, ge=0, description="weight of the KL divergence")
    binarised: bool = Field(False, description="train on pixels drawn black or white at each step by their grey")
    components: int = Field(10, ge=1, description="of the mixture that is fitted to the latents of each class")


class VaeConfig(VariationalConfig):
    """A variational autoencoder."""

    family: Literal["vae"] = "vae"
    name: str = Field("vae", pattern=NAME_PATTERN)


class CvaeConfig(VariationalConfig):
    """A variational autoencoder whose encoder and decoder know the label."""

    family: Literal["cvae"] = "cvae"
    name: str = Field("cvae", pattern=NAME_PATTERN)
    epochs: int = Field(20, ge=1)
    learning_rate: float = Field(2e-3, gt=0, description="at the start; it falls to 0 along a cosine")


class AdversarialConfig(TrainConfig):
    """What the families with a generator and a discriminator have."""

    generator_learning_rate: float = Field(5e-4, gt=0)
    discriminator_learning_rate: float = Field(1e-3, gt=0)
    discriminator_steps: int = Field(1, ge=1, description="for each generator step")
    gradient_penalty: float = Field(0.1, ge=0, description="gamma of R1, on the discriminator at real images")
    batch_norm: bool = Field(True, description="in the generator; folded away at export")


class GanConfig(AdversarialConfig):
    """A generative adversarial network."""

    family: Literal["gan"] = "gan"
    name: str = Field("gan", pattern=NAME_PATTERN)
    epochs: int = Field(10, ge=1, description="one generator step for each batch of the data")
    discriminator: Literal["near-sighted", "deep"] = Field(
        "near-sighted", description="two convolutions that see 7x7 pixels, or four layers that see the whole image"
    )
    generator_learning_rate: float = Field(2e-4, gt=0)
    discriminator_steps: int = Field(3, ge=1, description="for each generator step")
    gradient_penalty: float = Field(0.0, ge=0, description="gamma of R1, on the discriminator at real images")


class CganConfig(AdversarialConfig):
    """A generative adversarial network whose players know the label."""

    family: Literal["cgan"] = "cgan"
    name: str = Field("cgan", pattern=NAME_PATTERN)
    epochs: int = Field(6, ge=1, description="one generator step for each batch of the data")
    batch_size: int = Field(64, ge=2)


CONFIGS: dict[str, type[TrainConfig]] = {
    "vae": VaeConfig,
    "cvae": CvaeConfig,
    "gan": GanConfig,
    "cgan": CganConfig,
}

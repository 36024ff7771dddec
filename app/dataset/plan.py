"""The plan of a data set: everything that its bytes depend on."""

import shlex

from pydantic import BaseModel, ConfigDict, Field, computed_field

from app.checkpoints.manifest import Precision, Prior
from app.inference.runtime import Labels
from app.inference.sampling import Seeded

RESUME_HINT = "finished shards are kept; run the same command again to resume"


class DatasetError(Exception):
    """The data set cannot be written or continued. The text is one line for the user."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Request(_Record):
    """The arguments that the data set depends on."""

    model: str
    count: int
    seed: int
    label: str | None
    format: str

    @property
    def labels(self) -> str | list[str] | None:
        """The label for `SamplingOptions`."""
        return self.label.split(",") if self.label is not None and "," in self.label else self.label


class Computed(_Record):
    """A model with everything besides its inputs that its results depend on."""

    model: str
    digest: str = Field(description="SHA-256 of the archive")
    precision: Precision
    runtime: str = Field(description="id of `facts`")


class Plan(_Record):
    """A data set before its shards are made. Two data sets with equal plans have the same bytes."""

    request: Request
    generator: Computed
    classifier: Computed | None = Field(description="reads the images for the card; null: no checkpoint can")
    facts: dict[str, str] = Field(description="the runtime of the generator, and the library that writes the files")
    prior: Prior
    shape: tuple[int, int] = Field(description="height and width of an image")
    classes: tuple[str, ...] = Field(description="class names by label")
    labelled: bool = Field(description="whether the images have labels")
    labels_in_turn: tuple[int, ...] | None = Field(description="of the images; null: drawn from the seed")
    images_per_shard: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def command(self) -> str:
        """The command that makes the data set, with FOLDER for `--out`."""
        asked = self.request.model_dump(exclude_none=True) | {"out": "FOLDER"}
        return shlex.join(["python", "-m", "app", "dataset", *(f"--{name}={value}" for name, value in asked.items())])

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.request.count // self.images_per_shard)

    def span(self, shard: int) -> range:
        """The indices of the images of a shard."""
        first = shard * self.images_per_shard
        return range(first, min(first + self.images_per_shard, self.request.count))

    def source(self, latent_dim: int) -> Seeded:
        """Latents and labels of the seed."""
        labels = len(self.classes) if self.labelled else 0
        return Seeded(self.request.seed, latent_dim, self.prior, None, None, self.labels_in_turn, labels)

    def labels(self, shard: int) -> Labels | None:
        """The labels `(images,)` of a shard, None if the images have none."""
        span = self.span(shard)
        return self.source(latent_dim=1).labels(span.start, len(span))


class ShardRecord(_Record):
    """The entry of a shard in the manifest."""

    shard: int
    first: int = Field(description="index of its first image")
    images: int
    bytes: int
    sha256: str = Field(description="of its files, or of its parts of shared files, one after the other")
    labels: tuple[int, ...] | None = Field(description="number of images with each label; null: they have none")
    read: tuple[int, ...] | None = Field(description="number of images that the classifier reads as each class")
    agreeing: tuple[int, ...] | None = Field(description="number of images with each label that are read as it")

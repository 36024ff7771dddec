"""Generate, reconstruct, interpolate, score: what a caller asks, as rows through networks.

Knows capabilities, never families; knows nothing of HTTP or of image files.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.manifest import Precision
from app.checkpoints.store import Model
from app.errors import CapabilityMissing, InvalidRequest, ModelNotFound, ServiceError
from app.inference import latents
from app.inference.admission import RowAdmission
from app.inference.batching import Batcher
from app.inference.faults import compute_apart
from app.inference.runtime import Labelled, Labels, Outputs, Rows, Runtime
from app.inference.sampling import Draw
from app.inference.stages import Stage, StageInputs, Uploads, stages
from app.inference.workers import Workers
from app.metrics import Metrics
from app.settings import Settings

# Sigmoid networks saturate long before; beyond it float32 sums may overflow.
MAX_LATENT = 1000.0


@dataclass(frozen=True)
class Provenance:
    """What made an answer."""

    model: str
    digest: str
    precision: Precision
    runtime: str


@dataclass(frozen=True)
class Images:
    """Generated images with the latents and the labels they came from."""

    provenance: Provenance
    images: Rows  # (n, height, width) in [0, 1]
    latents: Rows  # (n, latent)
    labels: Labels | None = None  # (n,), None where the model has none


@dataclass(frozen=True)
class Reconstruction:
    """An image, what the model made of it, and how far the two are apart."""

    provenance: Provenance
    image: Rows  # (height, width) in [0, 1]
    reconstruction: Rows  # (height, width) in [0, 1]
    mean: Rows  # (latent,)
    log_variance: Rows  # (latent,)
    bce: float  # nats an image
    mse: float  # squared difference a pixel
    kl: float  # nats an image


@dataclass(frozen=True)
class Scores:
    """A discriminator's raw logits and their sigmoids."""

    provenance: Provenance
    logits: Rows  # (n,)
    probabilities: Rows  # (n,)


class Engine:
    """The loaded models, before the workers that all engines share: a reload puts another one in its place.

    Whoever began with an engine ends with it; the last of them lets go of its models.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        runtime: Runtime,
        workers: Workers,
        admission: RowAdmission,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.models = models
        self.runtime = runtime
        self._default = settings.default_model
        self._admission = admission
        self._batchers: dict[tuple[str, Stage], Batcher[StageInputs, Outputs]] = {
            (model.name, stage): Batcher(
                partial(compute_apart, compute),
                workers,
                metrics.batch_observer(model.name, stage),
                max_batch_rows=settings.max_batch_rows,
            )
            for model in models.values()
            for stage, compute in stages(model).items()
        }

    async def close(self) -> None:
        """Refuse new rows, fail waiting ones, wait for forward passes under way."""
        await asyncio.gather(*(batcher.close() for batcher in self._batchers.values()))

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Refuse new rows, and fail all that were taken, with an error of this kind."""
        for batcher in self._batchers.values():
            batcher.fail(error)

    def admit(self, rows: int) -> AbstractContextManager[None]:
        """A place for the rows that a request has at one time. Raises Overloaded at once where there is none."""
        return self._admission.admit(rows)

    def select(
        self,
        name: str | None,
        *capabilities: Capability,
        labelled: bool | None = None,
        classes: Collection[str] = (),
    ) -> Model:
        """The named model, else the default one if it is capable, else the first capable one by name.

        labelled: whether the caller gives labels. With uploads a network either needs them or does not know
        them; without, they are only asked for. None where it does not matter.
        classes: names of classes asked for. Where no model is named, those that have them go before.
        Raises ModelNotFound for an unknown name, CapabilityMissing naming a model that can.
        """
        missing = None
        if name is not None:
            if name not in self.models:
                raise ModelNotFound(f"no such model; there are: {', '.join(self.models)}")
            missing = cannot(self.models[name], capabilities, labelled)
            if missing is None:
                return self.models[name]
        capable = [model for model in self.models.values() if cannot(model, capabilities, labelled) is None]
        if missing is not None:
            raise CapabilityMissing(f"model {name} cannot {missing}; {_who_can(capable)}")
        if not capable:
            how = {None: "", True: " by label", False: " without a label"}[labelled]
            raise CapabilityMissing(f"no loaded model can {' and '.join(sorted(capabilities))}{how}")
        knowing = [model for model in capable if set(classes) <= set(model.manifest.classes)] or capable
        return next((model for model in knowing if model.name == self._default), knowing[0])

    async def draw(self, model: Model, draw: Draw, deadline: float) -> Images:
        """The images of what was drawn for the model. deadline: here as below, of the monotonic clock."""
        if draw.prior == "normal":
            return await self.generate(model, draw.noise, deadline, draw.labels)
        images, rows = await self._through(model, "sample", draw.noise, deadline, draw.labels)
        return Images(self.provenance(model), images[:, 0], rows, draw.labels)

    async def latents(self, model: Model, draw: Draw, deadline: float) -> Rows:
        """The latents of what was drawn for the model: `(n, latent)`."""
        if draw.prior == "normal":
            return draw.noise
        (rows,) = await self._through(model, "prior", draw.noise, deadline, draw.labels)
        return rows

    async def generate(self, model: Model, rows: Rows, deadline: float, labels: Labels | None = None) -> Images:
        """Latents `(n, latent)`, with labels `(n,)` for a conditional model, to images."""
        (images,) = await self._through(model, "generate", rows, deadline, labels)
        return Images(self.provenance(model), images[:, 0], rows, labels)

    async def reconstruct(
        self, model: Model, image: Rows, seed: int | None, deadline: float, labels: Labels | None = None
    ) -> Reconstruction:
        """Encode an image `(1, height, width)` in [0, 1] and decode its mean, or a sample of a seed.

        labels: that of the image, `(1,)`, for a conditional model.
        """
        rows = np.ascontiguousarray(image[None], dtype=np.float32)
        noise = None
        if seed is not None:
            noise = latents.normal_rows(seed, 0, 1, model.manifest.latent_dim, stream=latents.POSTERIOR_STREAM)
        uploads = Uploads(rows if labels is None else Labelled(rows, labels), noise)
        decoded, mean, log_variance, errors = await self._submitted(model, "reconstruct", uploads, deadline)
        bce, mse, kl = errors[0].tolist()
        return Reconstruction(self.provenance(model), image[0], decoded[0, 0], mean[0], log_variance[0], bce, mse, kl)

    async def encode(self, model: Model, images: Rows, deadline: float, labels: Labels | None = None) -> Rows:
        """The posterior means of images `(n, 1, height, width)` in [0, 1]: `(n, latent)`."""
        mean, _ = await self._through(model, "encode", images, deadline, labels)
        return mean

    async def score(self, model: Model, images: Rows, deadline: float, labels: Labels | None = None) -> Scores:
        """What the discriminator says of images `(n, 1, height, width)` in [0, 1]."""
        (logits,) = await self._through(model, "discriminate", images, deadline, labels)
        # One by one: a vectorised sigmoid rounds the last lanes of an array differently.
        probabilities = np.array([sigmoid(logit) for logit in logits.tolist()], dtype=np.float32)
        return Scores(self.provenance(model), logits, probabilities)

    def provenance(self, model: Model) -> Provenance:
        """What names the origin of an answer of this model."""
        return Provenance(model.name, model.digest, model.precision, model.runtime_id)

    async def _through(
        self, model: Model, stage: Stage, rows: Rows, deadline: float, labels: Labels | None = None
    ) -> list[Rows]:
        """Rows, with their labels where the stage takes them, through one stage: its outputs, whole again."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        return await self._submitted(model, stage, rows if labels is None else Labelled(rows, labels), deadline)

    async def _submitted(self, model: Model, stage: Stage, inputs: StageInputs, deadline: float) -> list[Rows]:
        """What a stage takes through it: its outputs, whole again."""
        chunks = await self._batchers[model.name, stage].submit(inputs, deadline=deadline)
        if len(chunks) == 1:
            return list(chunks[0])
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def cannot(model: Model, capabilities: Sequence[Capability], labelled: bool | None) -> str | None:
    """What of the wanted a model cannot do, in words; None where it can do all. `labelled` as `select` has it."""
    lacking = sorted(set(capabilities) - set(model.networks))
    if lacking:
        return " and ".join(lacking)
    uploads = "encode" in capabilities or "discriminate" in capabilities
    takes = model.manifest.conditional if uploads else model.manifest.has_labels
    doing = " and ".join(sorted(capabilities))
    if labelled and not takes:
        return f"{doing} by label"
    if labelled is False and uploads and takes:
        return f"{doing} without a label"
    return None


def latent_rows(model: Model, given: Sequence[Sequence[float]]) -> Rows:
    """A caller's latents as rows `(n, latent)`. Raises InvalidRequest unless they fit the model."""
    width = model.manifest.latent_dim
    if any(len(row) != width for row in given):
        raise InvalidRequest(f"a latent of model {model.name} has {width} numbers")
    rows = np.array(given, dtype=np.float64)
    if not (np.abs(rows) <= MAX_LATENT).all():  # false for what is not a number, too
        raise InvalidRequest(f"the numbers of a latent are finite and between -{MAX_LATENT:g} and {MAX_LATENT:g}")
    return rows.astype(np.float32)


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def _who_can(capable: list[Model]) -> str:
    return f"{capable[0].name} can" if capable else "no loaded model can"

"""Plan a data set and make its shards: pure functions, run by local processes and by the nodes of a cluster."""

import hashlib
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np

from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import Manifest
from app.checkpoints.store import CheckpointError, find_manifests, read_manifest
from app.dataset.formats import FORMATS, check_format
from app.dataset.plan import Computed, DatasetError, Plan, Request, ShardRecord
from app.errors import InvalidRequest, ServiceError
from app.images.encode import from_uint8, to_uint8
from app.inference.machine import DeviceUnavailable
from app.inference.model import Model, load_model
from app.inference.runtime import DeviceLost, Runtime
from app.inference.sampling import SamplingOptions, draw, generate, seeded
from app.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

IMAGES_PER_SHARD = 10_000
# For a model with hundreds of steps per pass, so that a stop or a lost process costs at most a minute.
SEQUENTIAL_IMAGES_PER_SHARD = 500


class Setup(NamedTuple):
    """The settings that models are loaded with."""

    models_dir: Path
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    batch_rows: int

    @classmethod
    def of(cls, settings: Settings) -> "Setup":
        """The setup of a service with these settings."""
        return cls(settings.models_dir.absolute(), settings.device, settings.precision, settings.max_batch_rows)


class Shard(NamedTuple):
    """A shard with its contents, in the order of the places of its format."""

    record: ShardRecord
    contents: list[bytes]


def _expected_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Turn expected errors into DatasetError, which any process can send to another."""

    @wraps(function)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ServiceError as error:
            raise DatasetError(error.detail) from error
        except (CheckpointError, DeviceUnavailable) as error:
            raise DatasetError(str(error)) from error
        except DeviceLost as error:
            raise DatasetError(f"the device failed: {error.__cause__}") from error

    return explained


@_expected_errors
def check(setup: Setup, request: Request) -> None:
    """Check what can be checked without loading the model. Raises DatasetError."""
    _find(setup, request)


@lru_cache(maxsize=8)
@_expected_errors
def make_plan(setup: Setup, request: Request) -> Plan:
    """The plan of a data set that this process would make. Raises DatasetError."""
    manifest, classifier = _find(setup, request)
    source = seeded(manifest, SamplingOptions(label=request.labels), 0)
    library = check_format(request.format, source.class_count)
    model = _load(setup, manifest.name)
    return Plan(
        request=request,
        generator=_computed(model),
        classifier=_computed(_load(setup, classifier)) if classifier else None,
        facts=dict(model.facts) | library,
        prior=source.prior,
        shape=manifest.image.shape[1:],
        classes=manifest.classes,
        labelled=source.class_count > 0,
        labels_in_turn=source.classes,
        images_per_shard=SEQUENTIAL_IMAGES_PER_SHARD if manifest.sequential else IMAGES_PER_SHARD,
    )


@_expected_errors
def make_shard(setup: Setup, plan: Plan, shard: int) -> Shard:
    """Make the shard of this number. Raises DatasetError, also if this process would make other bytes than planned."""
    if (here := make_plan(setup, plan.request)) != plan:
        raise DatasetError(_difference(plan, here))
    model = _load(setup, plan.generator.model)
    classifier = _load(setup, plan.classifier.model) if plan.classifier else None
    span, source = plan.span(shard), plan.source(model.manifest.shape(Symbol.LATENT)[0])
    pixels = np.empty((len(span), *plan.shape), dtype=np.uint8)
    read = np.empty(len(span), dtype=np.int64)
    for first in range(0, len(span), setup.batch_rows):
        rows = slice(first, min(first + setup.batch_rows, len(span)))
        drawn = draw(model, [(source, span.start + rows.start, rows.stop - rows.start)])
        images = to_uint8(generate(model, drawn))
        pixels[rows] = images[:, 0]
        if classifier is not None:
            (probabilities,) = classifier.run("classify", from_uint8(images))
            read[rows] = probabilities.argmax(axis=1)
    labels = plan.labels(shard)
    contents = list(FORMATS[plan.request.format].contents(plan, shard, pixels, labels))
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)

    def counts(values: np.typing.NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(np.bincount(values, minlength=len(plan.classes)).tolist())

    record = ShardRecord(
        shard=shard,
        first=span.start,
        images=len(span),
        bytes=sum(map(len, contents)),
        sha256=digest.hexdigest(),
        labels=None if labels is None else counts(labels),
        read=None if classifier is None else counts(read),
        agreeing=None if classifier is None or labels is None else counts(labels[labels == read]),
    )
    return Shard(record, contents)


def _find(setup: Setup, request: Request) -> tuple[Manifest, str | None]:
    """The manifest of the model, and the name of the first classifier that reads its images."""
    manifests = {path.parent.name: read_manifest(path) for path in find_manifests(setup.models_dir)}
    makers = [each for each in manifests.values() if "generate" in each.capabilities]
    manifest = manifests.get(request.model)
    if manifest not in makers:
        problem = "no checkpoint" if manifest is None else "a model that generates nothing:"
        names = ", ".join(each.name for each in makers)
        raise DatasetError(f"{setup.models_dir} has {problem} {request.model}; these generate images: {names}")
    try:
        seeded(manifest, SamplingOptions(label=request.labels), 0)
    except InvalidRequest as error:
        others = ", ".join(each.name for each in makers if each.has_labels)
        raise DatasetError(error.detail + ("" if manifest.has_labels else f"; these can: {others}")) from error
    readers = (
        each.name
        for each in manifests.values()
        if "classify" in each.capabilities
        and each.classes == manifest.classes
        and each.shape(Symbol.INPUT_IMAGE) == manifest.image.shape
    )
    return manifest, next(readers, None)


@lru_cache(maxsize=8)
def _load(setup: Setup, name: str) -> Model:
    runtime = Runtime(setup.device, setup.precision)
    return load_model(setup.models_dir / name / "manifest.json", runtime, setup.batch_rows)


def _computed(model: Model) -> Computed:
    return Computed.model_validate(vars(model.provenance))


def _difference(plan: Plan, here: Plan) -> str:
    """Why a process would make different bytes."""
    if plan.facts != here.facts:
        name = next(name for name in plan.facts | here.facts if plan.facts.get(name) != here.facts.get(name))
        return (
            f"a node of the cluster would make different bytes: its {name} is {here.facts.get(name)!r}, "
            f"that of the first one is {plan.facts.get(name)!r}"
        )
    return "a node of the cluster has checkpoints that differ from those of the first one"

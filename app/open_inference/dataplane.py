"""The data plane: the job of a request, which arrived over HTTP or gRPC, to a model of the protocol."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from app.checkpoints.capabilities import Symbol
from app.errors import InvalidRequest
from app.images import encode
from app.inference.batching import Chunk, Job
from app.inference.latents import MAX_SEED
from app.inference.model import Model
from app.inference.runtime import Labels, Rows
from app.inference.sampling import (
    MAX_LATENT,
    Given,
    SamplingOptions,
    Seeded,
    class_list,
    concatenated,
    draw,
    seeded,
    split,
)
from app.open_inference.messages import InferenceRequest, InputTensor
from app.open_inference.servable import IMAGES, Servable, Tensor
from app.open_inference.tensors import from_bytes, from_numbers
from app.settings import Settings

NO_LABEL = -1

# Encodes the arrays of the outputs, in order, as a response.
Encoder = Callable[[Sequence[NDArray[Any]]], bytes]


@dataclass(frozen=True)
class InferenceJob(Job[list[NDArray[Any]]]):
    """Rows for a capability. Only rows of the same capability are batched together, see `job_type`."""

    capability: ClassVar[str]

    source: Seeded | Given  # latents of a seed, or rows of the caller, which may also be images or noise
    first: int
    rows: int
    outputs: tuple[Tensor, ...]  # of the model
    wanted: tuple[int, ...]  # indices of the outputs in the response
    encode: Encoder

    @property
    def seed(self) -> int | None:
        """The seed, if there is one."""
        return self.source.seed if isinstance(self.source, Seeded) else None

    @classmethod
    def compute(cls, model: Model, chunks: Sequence[Chunk[Self]]) -> list[list[NDArray[Any]]]:
        """The outputs of each chunk, in order."""
        counts = [chunk.count for chunk in chunks]
        drawn = draw(model, [(chunk.job.source, chunk.job.first + chunk.first, chunk.count) for chunk in chunks])
        labels = concatenated([known for _, known in drawn])
        results = model.run(cls.capability, np.concatenate([rows for rows, _ in drawn]), labels)
        by_output: list[list[NDArray[Any]]] = []
        for tensor, result in zip(chunks[0].job.outputs, results, strict=False):
            by_output.append(split(encode.to_uint8(result[:, 0]) if tensor.symbol in IMAGES else result, counts))
        if len(chunks[0].job.outputs) > len(results):
            by_output.append([_or_unlabelled(known, count) for (_, known), count in zip(drawn, counts, strict=True)])
        return [list(parts) for parts in zip(*by_output, strict=True)]

    def answer(self, parts: Sequence[list[NDArray[Any]]]) -> bytes:
        """The bytes of the response."""
        return self.encode([np.concatenate([part[index] for part in parts]) for index in self.wanted])


def _or_unlabelled(labels: Labels | None, count: int) -> Labels:
    return np.full(count, NO_LABEL, np.int64) if labels is None else labels


@cache
def job_type(capability: str) -> type[InferenceJob]:
    """The job class of a capability. A batch holds jobs of a single class."""
    return type(
        f"InferenceJobOf_{capability}",
        (InferenceJob,),
        {"capability": capability, "operation": f"infer_{capability}"},
    )


def make_job(
    servable: Servable,
    request: InferenceRequest,
    contents: Sequence[bytes | Sequence[Any] | None],
    settings: Settings,
    make_encoder: Callable[[Sequence[Tensor], int, int | None], Encoder],
) -> InferenceJob:
    """The job of a request.

    contents: of each input its bytes or its numbers; None if they are in the request. make_encoder: makes the
    encoder of the response from its outputs, the number of rows, and the seed.

    Raises InvalidRequest and CapabilityMissing for tensors and parameters that the model does not take.
    """
    if request.model_name is not None and request.model_name != servable.name:
        raise InvalidRequest("model_name differs from the model that the request is for")
    outputs = servable.outputs
    wanted = _wanted(servable, request)
    rows, source, first = _source(servable, request, contents, settings)
    pixels = sum(math.prod(outputs[index].shape) for index in wanted if outputs[index].symbol in IMAGES)
    if rows * pixels > settings.max_answer_pixels:
        raise InvalidRequest(f"a response is limited to {settings.max_answer_pixels} pixels; request fewer images")
    seed = source.seed if isinstance(source, Seeded) else None
    encoder = make_encoder([outputs[index] for index in wanted], rows, seed)
    return job_type(servable.capability)(source, first, rows, outputs, wanted, encoder)


def _wanted(servable: Servable, request: InferenceRequest) -> tuple[int, ...]:
    """The indices of the outputs in the response."""
    indices = {tensor.name: index for index, tensor in enumerate(servable.outputs)}
    names = [output.name for output in request.outputs]
    if not set(names) <= set(indices):
        raise InvalidRequest(f"the outputs of {servable.name} are {', '.join(indices)}")
    if len(set(names)) != len(names):
        raise InvalidRequest("an output is requested twice")
    return tuple(indices[name] for name in names) if names else tuple(indices.values())


def _source(
    servable: Servable, request: InferenceRequest, contents: Sequence[bytes | Sequence[Any] | None], settings: Settings
) -> tuple[int, Seeded | Given, int]:
    """The number of rows, where they come from, and the index of the first one."""
    manifest, asked = servable.model.manifest, request.parameters
    is_seeded = servable.takes_latents and "latent" not in {tensor.name for tensor in request.inputs}
    if is_seeded and asked.seed is None:
        raise InvalidRequest(f"{servable.name} needs the input latent, or the parameter seed")
    if asked.sampling and not is_seeded:
        parameters = ", ".join(asked.sampling)
        advice = "go without the input latent" if servable.takes_latents else f"{servable.name} takes no latent"
        raise InvalidRequest(f"the parameters {parameters} draw latents: {advice}")
    taken = servable.inputs
    if is_seeded:
        taken = (Tensor.of(manifest, Symbol.LABEL),) if manifest.has_labels else ()
    arrays = _arrays(servable, taken, request.inputs, contents, settings)
    labels = arrays.pop("label", None)
    if is_seeded:
        return _seeded(servable, request, labels, settings)
    missing = [tensor.name for tensor in taken if tensor.name not in {each.name for each in request.inputs}]
    if missing:
        raise InvalidRequest(f"{servable.name} also needs the input {' and '.join(missing)}")
    (rows,) = arrays.values()
    if labels is not None and len(labels) != len(rows):
        raise InvalidRequest("the inputs must have the same number of rows")
    return len(rows), Given(rows, None if labels is None else tuple(labels.tolist())), 0


def _seeded(
    servable: Servable, request: InferenceRequest, labels: Labels | None, settings: Settings
) -> tuple[int, Seeded, int]:
    manifest, asked = servable.model.manifest, request.parameters
    assert asked.seed is not None
    count = asked.n or (1 if labels is None else len(labels))
    first = asked.first or 0
    if labels is not None and len(labels) != count:
        raise InvalidRequest("n must be the number of rows of label")
    if count > settings.max_images:
        raise InvalidRequest(f"a request is limited to {settings.max_images} images; page with `first`")
    if first + count - 1 > MAX_SEED:
        raise InvalidRequest("first + n - 1 must not exceed 2^53 - 1")
    names = None
    if labels is not None:
        # A source assigns classes to images by index, starting at `first`.
        names = [manifest.classes[label] for label in np.roll(labels, first % count)]
    options = SamplingOptions(names, asked.prior, asked.temperature, asked.truncation)
    return count, seeded(manifest, options, asked.seed), first


def _arrays(
    servable: Servable,
    taken: Sequence[Tensor],
    inputs: Sequence[InputTensor],
    contents: Sequence[bytes | Sequence[Any] | None],
    settings: Settings,
) -> dict[str, NDArray[Any]]:
    """The inputs as arrays with the shape and the type that a network takes, by name."""
    known = {tensor.name: tensor for tensor in taken}
    arrays: dict[str, NDArray[Any]] = {}
    for given, content in zip(inputs, contents, strict=True):
        tensor = known.get(given.name)
        if tensor is None:
            raise InvalidRequest(f"{servable.name} takes {_listed(known)} for this request")
        if tensor.name in arrays:
            raise InvalidRequest(f"the input {tensor.name} is given twice")
        if given.datatype not in tensor.datatypes:
            raise InvalidRequest(f"the datatype of the input {tensor.name} is {' or '.join(tensor.datatypes)}")
        if not given.shape or tuple(given.shape[1:]) != tensor.shape or not given.shape[0]:
            raise InvalidRequest(
                f"the shape of the input {tensor.name} is {[-1, *tensor.shape]}, with at least one row"
            )
        if given.shape[0] > settings.max_images:
            raise InvalidRequest(f"a request is limited to {settings.max_images} rows")
        numbers = given.data if content is None else content
        if numbers is None:
            raise InvalidRequest(f"the input {tensor.name} has no data")
        if isinstance(numbers, bytes):
            array = from_bytes(tensor.name, given.datatype, given.shape, numbers)
        else:
            array = from_numbers(tensor.name, given.datatype, given.shape, numbers)
        arrays[tensor.name] = _checked(servable, tensor, array)
    return arrays


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"the input {name}" for name in names) or "no input"


def _checked(servable: Servable, tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    """An input as a network takes it. Raises InvalidRequest for values out of range, including NaN."""
    if tensor.symbol is Symbol.LABEL:
        manifest = servable.model.manifest
        if not ((array >= 0) & (array < len(manifest.classes))).all():
            highest = len(manifest.classes) - 1
            raise InvalidRequest(f"a label is from 0 to {highest}, the index of a class: {class_list(manifest)}")
        return array
    if tensor.symbol in IMAGES:
        rows: Rows = encode.from_uint8(array) if array.dtype == np.uint8 else array.astype(np.float32)
        if not ((rows >= 0) & (rows <= 1)).all():
            raise InvalidRequest("a pixel is a number from 0 to 1, or of UINT8 an integer from 0 to 255")
        return rows[:, None]
    if not (np.abs(array) <= MAX_LATENT).all():
        raise InvalidRequest(f"the numbers of {tensor.name} are finite and between -{MAX_LATENT:g} and {MAX_LATENT:g}")
    return array.astype(np.float32)

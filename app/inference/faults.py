"""Faults of a forward pass: which kind one is, and how it stays with the rows that caused it. Knows no queue."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import InferenceFailed, OutOfMemory, ServiceError
from app.inference.batching import Rows

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Rows)
Outputs = tuple[NDArray[np.float32], ...]
Compute = Callable[[Sequence[R]], list[Outputs]]

# As PyTorch's allocators and the C++ library put it. TorchScript makes a RuntimeError of whatever was raised in an
# archive and keeps only the text.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")


class DeviceLost(BaseException):
    """The device computes nothing more in this process. No Exception, as nothing here can go on: it ends the thread."""


def fault_of(error: Exception) -> ServiceError:
    """What a caller is told of what a forward pass raised. Raises DeviceLost where no further pass can work.

    An error of CUDA that is not about memory leaves a context in which every later call fails.
    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html, cudaError
    """
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in NO_MEMORY):
        return OutOfMemory("there was no memory for these rows; ask for fewer or later")
    if isinstance(error, torch.AcceleratorError) or "cuda error" in text:
        raise DeviceLost from error
    return InferenceFailed("the network failed on these rows")


def compute_apart(compute: Compute[R], chunks: Sequence[R]) -> list[Outputs | ServiceError]:
    """Each chunk's outputs, or the error that is its own: one bad row fails no other chunk.

    A batch that fails is halved until the chunk is found; a batch without memory is computed in two halves, once.
    A row is the same bytes in every batch, so whoever was beside it does not notice.
    """
    try:
        return [*compute(chunks)]
    except OutOfMemory as error:
        log.warning("no memory for %d rows, trying halves", sum(map(len, chunks)), exc_info=error)
        return _in_halves(compute, chunks)
    except ServiceError as error:
        return _each(compute, chunks, error)


def _each(compute: Compute[R], chunks: Sequence[R], error: ServiceError) -> list[Outputs | ServiceError]:
    """What is left of a batch that failed with `error`."""
    if len(chunks) == 1:
        log.error("a pass over %d rows failed", len(chunks[0]), exc_info=error)
        return [error]
    middle = len(chunks) // 2
    found: list[Outputs | ServiceError] = []
    for half in (chunks[:middle], chunks[middle:]):
        try:
            found += compute(half)
        except ServiceError as raised:
            found += _each(compute, half, raised)
    return found


def _in_halves(compute: Compute[R], chunks: Sequence[R]) -> list[Outputs | ServiceError]:
    """Both halves of every chunk, first all the first ones: half the rows at a time, whatever the chunks' sizes."""
    firsts = [chunk[: (len(chunk) + 1) // 2] for chunk in chunks]
    if len(chunks) > 1 and max(map(len, chunks)) == 1:
        middle = len(chunks) // 2
        return [*_once(compute, chunks[:middle]), *_once(compute, chunks[middle:])]
    seconds = [chunk[len(first) :] for chunk, first in zip(chunks, firsts, strict=True)]
    there = [number for number, second in enumerate(seconds) if len(second)]
    found = _once(compute, firsts)
    if there:
        rest = _once(compute, [seconds[number] for number in there])
        for number, second in zip(there, rest, strict=True):
            found[number] = _joined(found[number], second)
    return found


def _once(compute: Compute[R], chunks: Sequence[R]) -> list[Outputs | ServiceError]:
    try:
        return [*compute(chunks)]
    except OutOfMemory as error:
        log.error("no memory for %d rows in halves either", sum(map(len, chunks)), exc_info=error)
        return [error for _ in chunks]
    except ServiceError as error:
        return _each(compute, chunks, error)


def _joined(first: Outputs | ServiceError, second: Outputs | ServiceError) -> Outputs | ServiceError:
    if isinstance(first, ServiceError):
        return first
    if isinstance(second, ServiceError):
        return second
    return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))

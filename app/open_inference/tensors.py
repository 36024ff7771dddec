"""The contents of tensors: JSON numbers or little-endian bytes, to arrays and back."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequest

# The datatypes of the protocol that tensors of this service have.
DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8"), "UINT8": np.dtype("u1")}


def from_bytes(name: str, datatype: str, shape: Sequence[int], content: bytes) -> NDArray[Any]:
    """The array of a binary tensor. Raises InvalidRequest unless the bytes are as many as datatype and shape need."""
    needed = math.prod(shape) * DATATYPES[datatype].itemsize
    if len(content) != needed:
        raise InvalidRequest(f"input {name} needs {needed} bytes, and {len(content)} were sent")
    return np.frombuffer(content, DATATYPES[datatype]).reshape(shape)


def from_numbers(name: str, datatype: str, shape: Sequence[int], numbers: Sequence[Any]) -> NDArray[Any]:
    """The array of a tensor whose numbers are in a flat list, or in lists nested as the shape.

    Raises InvalidRequest for other nesting, a wrong number of numbers, and numbers that the datatype does not have.
    """
    count = math.prod(shape)
    flat, nesting = _flattened(numbers) if len(numbers) <= count else (numbers, (len(numbers),))
    if nesting not in {tuple(shape), (count,)}:
        raise InvalidRequest(
            f"the data of input {name} must be {count} numbers, flat or nested as the shape {list(shape)}"
        )
    dtype = DATATYPES[datatype]
    if not set(map(type, flat)) <= ({int, float} if dtype.kind == "f" else {int}):
        raise InvalidRequest(f"the data of input {name} must be {'numbers' if dtype.kind == 'f' else 'integers'}")
    try:
        array = np.array(flat, np.float64 if dtype.kind == "f" else np.int64).reshape(shape)
    except OverflowError:
        raise InvalidRequest(f"the data of input {name} has a number that {datatype} cannot hold") from None
    if dtype.kind == "u" and not ((array >= 0) & (array <= np.iinfo(dtype).max)).all():
        raise InvalidRequest(f"the data of input {name} must be integers from 0 to {np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):  # infinities are refused with other values that a tensor cannot have
        return array.astype(dtype)


def _flattened(numbers: Sequence[Any]) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Nested lists as one, and the lengths of the lists at each level; lists of unequal lengths stay as they are."""
    lengths = [len(numbers)]
    while numbers and set(map(type, numbers)) == {list} and len({*map(len, numbers)}) == 1:
        lengths.append(len(numbers[0]))
        numbers = list(chain.from_iterable(numbers))
    return numbers, tuple(lengths)


def to_bytes(array: NDArray[Any], datatype: str) -> bytes:
    """The bytes of an array, little-endian, row by row."""
    return np.ascontiguousarray(array, DATATYPES[datatype]).tobytes()

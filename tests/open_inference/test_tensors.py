"""Contents of tensors."""

from typing import Any

import numpy as np
import pytest

from app.errors import InvalidRequest
from app.open_inference.tensors import from_bytes, from_numbers, to_bytes


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_numbers_are_flat_or_nested_as_the_shape(numbers):
    assert from_numbers("x", "INT64", [2, 3], numbers).tolist() == [[1, 2, 3], [4, 5, 6]]


WRONG: dict[str, list[Any]] = {
    "INT64": [
        *([1], [1, 2, 3], [[1], [2]], [[1, 2]], [1, [2]], [[1], 2], [[], []], []),
        *([1, True], [1, 1.0], [1, "1"], [1, None], [1, {}], [1, 2**63], [1, -(2**63) - 1], [1, 10**400]),
    ],
    "UINT8": [[0, -1], [0, 256], [0, True], [0, 0.5], [0, 2**64]],
    "FP32": [[0, True], [0, "1"], [0, None], [0, [1]], [0, 10**400]],
}


@pytest.mark.parametrize(
    ("datatype", "numbers"), [(datatype, numbers) for datatype, lists in WRONG.items() for numbers in lists]
)
def test_other_numbers_are_refused(datatype, numbers):
    with pytest.raises(InvalidRequest):
        from_numbers("x", datatype, [2], numbers)


def test_integers_are_numbers_of_a_float_tensor():
    assert from_numbers("x", "FP32", [2], [1, 0.5]).tolist() == [1, 0.5]


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "UINT8"])
def test_bytes_are_little_endian_and_row_by_row(datatype):
    array = np.arange(6).reshape(2, 3)
    content = to_bytes(array.T.copy().T, datatype)
    assert content == array.astype({"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}[datatype]).tobytes()
    assert np.array_equal(from_bytes("x", datatype, [2, 3], content), array)
    for wrong in (content[:-1], content + b"\0", b""):
        with pytest.raises(InvalidRequest):
            from_bytes("x", datatype, [2, 3], wrong)

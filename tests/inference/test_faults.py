"""A fault stays with the rows that caused it, through real networks of real archives."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch

from app.errors import InferenceFailed, OutOfMemory, ServiceError
from app.inference.faults import DeviceLost, Outputs, compute_apart, fault_of
from app.inference.runtime import Network, Rows, forward


class Marked(torch.nn.Module):
    """Doubles its rows; raises for 13, gives NaN for 14, and asks for more memory than there is over `most` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if bool((rows == 13).any()):
            raise RuntimeError("a bad row")
        if rows.shape[0] > self.most:
            rows = torch.zeros(1 << 58)
        return torch.where(rows == 14, rows * float("nan"), 2 * rows)


class Counted:
    """A network that knows how many rows each of its passes had."""

    def __init__(self, most: int = 1000) -> None:
        self._network = Network(partial(forward, torch.jit.script(Marked(most)), torch.device("cpu")))
        self.passes: list[int] = []

    def compute(self, chunks: Sequence[Rows]) -> list[Outputs]:
        self.passes.append(sum(map(len, chunks)))
        return self._network.compute(chunks)


def chunks_of(*values: Sequence[int]) -> list[Rows]:
    return [np.array(each, np.float32)[:, None] for each in values]


def values_of(found: Sequence[Outputs | ServiceError]) -> list[list[float] | type[ServiceError]]:
    return [type(each) if isinstance(each, ServiceError) else each[0][:, 0].tolist() for each in found]


@pytest.mark.parametrize("bad", [13, 14])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_bad_row_fails_its_own_chunk_and_no_other(bad, place):
    values = [[number] for number in range(7)]
    values[place] = [5, bad]
    found = values_of(compute_apart(Counted().compute, chunks_of(*values)))
    assert found[place] is InferenceFailed
    assert [each for each in found if each is not InferenceFailed] == [
        [2 * number] for number in range(7) if number != place
    ]


def test_every_chunk_may_be_bad():
    assert values_of(compute_apart(Counted().compute, chunks_of([13], [14], [13, 14]))) == [InferenceFailed] * 3


def test_a_batch_without_a_fault_is_one_pass():
    network = Counted()
    assert values_of(compute_apart(network.compute, chunks_of([1, 2], [3]))) == [[2, 4], [6]]
    assert network.passes == [3]


@pytest.mark.parametrize("values", [[[1, 2, 3, 4]], [[1], [2], [3], [4]], [[1], [2, 3, 4]], [[1, 2, 3], [4]]])
def test_a_batch_without_memory_is_computed_in_halves(values):
    network = Counted(most=3)
    assert values_of(compute_apart(network.compute, chunks_of(*values))) == [[2 * n for n in each] for each in values]
    assert network.passes[0] == 4
    assert sorted(network.passes[1:]) in ([2, 2], [1, 3])


def test_halves_are_tried_once():
    network = Counted(most=1)
    assert values_of(compute_apart(network.compute, chunks_of([1, 2, 3, 4]))) == [OutOfMemory]
    assert network.passes == [4, 2, 2]


def test_a_bad_row_in_a_half_fails_its_own_chunk_and_no_other():
    network = Counted(most=3)
    found = values_of(compute_apart(network.compute, chunks_of([1], [13], [3], [4])))
    assert found == [[2], InferenceFailed, [6], [8]]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("std::bad_alloc")]
)
def test_whatever_says_that_there_is_no_memory_is_a_503(error):
    assert isinstance(fault_of(error), OutOfMemory)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), torch.AcceleratorError("")]
)
def test_a_device_that_is_lost_ends_the_thread(error):
    with pytest.raises(DeviceLost):
        fault_of(error)


def test_what_is_known_of_a_fault_is_not_told_to_the_caller():
    assert "secret" not in fault_of(RuntimeError("a secret")).detail

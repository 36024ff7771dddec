"""Data sets that cannot be served are refused, and the order of rows depends on seed and epoch only."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.data import DataUnavailable, epoch_batches


@pytest.mark.parametrize("classes", [("cat", "cat"), ("cat, grey", "dog")])
def test_class_names_that_requests_could_not_use_are_refused_before_training(dataset, classes):
    with pytest.raises(DataUnavailable, match="class"):
        replace(dataset, classes=classes)


def epoch(count: int = 100, batch_size: int = 8, seed: int = 0, number: int = 0) -> Tensor:
    """The rows of one epoch in three streams, `(3, rows)`."""
    batches = list(epoch_batches(count, batch_size, 3, seed, number))
    assert {(batch.shape, batch.dtype) for batch in batches} == {((3, batch_size), torch.int64)}
    return torch.cat(batches, dim=1)


@pytest.mark.parametrize(("count", "batch_size"), [(100, 8), (100, 100)])
def test_each_stream_of_an_epoch_is_a_permutation_without_an_incomplete_batch(count, batch_size):
    streams = epoch(count, batch_size).tolist()
    for stream in streams:
        assert len(set(stream)) == len(stream) == count // batch_size * batch_size
        assert set(stream) <= set(range(count))
        assert stream != sorted(stream)
    assert len(set(map(tuple, streams))) == 3


def test_batches_depend_only_on_seed_and_epoch():
    rows = epoch(seed=3, number=4)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(rows, epoch(seed=3, number=4))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(rows, epoch(seed=3, number=5))
    assert not torch.equal(rows, epoch(seed=4, number=4))
    largest = 2**53 - 1
    assert not torch.equal(epoch(seed=largest), epoch(seed=largest - 1))

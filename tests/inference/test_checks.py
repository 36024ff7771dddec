"""Checks of a network before it serves."""

import numpy as np
import pytest
import torch

from app.checkpoints.manifest import PIXEL_BOUND, Golden, TensorRecord
from app.inference.checks import CheckFailed, TooInaccurate, check_golden, warm_up
from app.inference.latents import normal_rows
from app.inference.runtime import Network, Rows

LATENTS = normal_rows(0, 0, 4, 3)


def golden(outputs: Rows, *labels: np.ndarray) -> Golden:
    inputs = tuple(TensorRecord.of(each) for each in (LATENTS, *labels))
    return Golden(inputs=inputs, outputs=(TensorRecord.of(outputs),), tolerance=1e-4)


@pytest.mark.parametrize(
    ("capability", "precision", "allowed"),
    [
        ("generate", "float32", 1e-4),
        ("generate", "bfloat16", PIXEL_BOUND),
        ("decode", "bfloat16", PIXEL_BOUND),
        ("encode", "bfloat16", 1e-4),
        ("discriminate", "bfloat16", 1e-4),
    ],
)
def test_only_images_of_a_lower_precision_may_differ_more_from_their_golden_rows(capability, precision, allowed):
    check_golden(capability, Network(lambda rows: (rows + 0.9 * allowed,)), golden(LATENTS), precision)
    for difference in (1.1 * allowed, -1.1 * allowed):
        with pytest.raises(TooInaccurate):
            check_golden(capability, Network(lambda rows, d=difference: (rows + d,)), golden(LATENTS), precision)


@pytest.mark.parametrize(
    "forward",
    [lambda rows: (rows[:, :2],), lambda rows: (rows[1:],), lambda rows: (rows * float("nan"),), lambda rows: 1 // 0],
)
def test_outputs_of_another_shape_or_no_outputs_fail_in_every_precision(forward):
    with pytest.raises(CheckFailed) as caught:
        check_golden("generate", Network(forward), golden(LATENTS), "bfloat16")
    assert not isinstance(caught.value, TooInaccurate)


def tiled(tile: int) -> Network:
    """The rows of an incomplete tile are a bit larger, as those of matrix kernels are."""

    def forward(rows: torch.Tensor) -> tuple[torch.Tensor]:
        whole = len(rows) // tile * tile
        return (torch.cat([rows[:whole], torch.nextafter(rows[whole:], torch.tensor(torch.inf))]),)

    return Network(forward)


@pytest.mark.parametrize(
    ("tile", "multiple", "identical"),
    [(1, 1, True), (2, 2, True), (4, 4, True), (8, 8, True), (16, 16, True), (3, 16, False)],
)
def test_warm_up_finds_the_smallest_row_multiple_with_which_rows_are_equal(tile, multiple, identical):
    network = tiled(tile)
    assert warm_up(network, golden(LATENTS), 32) == identical
    assert network.row_multiple == multiple


def test_a_row_multiple_above_the_largest_batch_gives_all_batches_one_size():
    network = tiled(3)
    assert warm_up(network, golden(LATENTS), 8)
    assert network.row_multiple == 16


@pytest.mark.parametrize(
    "forward",
    [
        lambda rows: (rows + torch.arange(len(rows))[:, None] * 1e-6,),
        lambda rows: (rows + rows.roll(1, 0),),
        lambda rows: (rows if len(rows) < 32 else torch.nextafter(rows, torch.tensor(9.0)),),
    ],
    ids=["on its position", "on its neighbour", "on whether the batch is full"],
)
def test_rows_that_depend_on_their_batch_are_reported(forward):
    assert not warm_up(Network(forward), golden(LATENTS), 32)


def test_a_sequential_network_is_checked_with_fewer_passes():
    passes = {}
    for sequential in (False, True):
        batches: list[int] = []

        def forward(rows: torch.Tensor, batches: list[int] = batches) -> tuple[torch.Tensor]:
            batches.append(len(rows))
            whole = len(rows) // 4 * 4
            return (torch.cat([rows[:whole], rows[whole:] + 1e-6]),)

        network = Network(forward)
        assert warm_up(network, golden(LATENTS), 32, sequential=sequential)
        assert network.row_multiple == 4
        passes[sequential] = len(batches)
    assert passes[True] < passes[False]


def test_the_time_of_a_row_is_measured():
    network = tiled(1)
    warm_up(network, golden(LATENTS), 32)
    assert network.row_ms > 0


def test_labels_are_checked_with_their_rows():
    labels = np.arange(4)
    recorded = golden(LATENTS + labels[:, None].astype(np.float32), labels)
    network = Network(lambda rows, labels: (rows + labels[:, None],))
    check_golden("generate", network, recorded, "float32")
    assert warm_up(network, recorded, 32)
    with pytest.raises(TooInaccurate):
        check_golden("generate", Network(lambda rows, labels: (rows + labels[:, None] + 1,)), recorded, "float32")
    assert not warm_up(Network(lambda rows, labels: (rows + labels.roll(1)[:, None],)), recorded, 32)


def test_a_network_with_batches_of_one_shape_keeps_its_row_multiple():
    network = Network(lambda rows: (rows,), row_multiple=32)
    assert warm_up(network, golden(LATENTS), 32)
    assert network.row_multiple == 32

"""Checks of a network before it serves: its golden rows, and whether a row has the same bits in every batch."""

from collections.abc import Sequence
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.checkpoints.capabilities import CAPABILITIES
from app.checkpoints.manifest import PIXEL_BOUND, Golden, Precision
from app.errors import InferenceFailed, OutOfMemory
from app.inference.runtime import Network, Rows

# TorchScript profiles a method on the first call and optimizes it on the second.
WARM_UP_PASSES = 3
# Batch sizes to compare; the primes leave a remainder for every tile size.
SIZES = (1, 2, 3, 5, 8, 13)
# Of a sequential network, whose passes take up to a second.
SEQUENTIAL_SIZES = (1, 3)
# Row multiples to try, the cheapest first.
ROW_MULTIPLES = (1, 2, 4, 8)

Inputs = tuple[NDArray[Any], ...]


class CheckFailed(Exception):
    """A network that must not serve. The text names the capability and the cause."""


class TooInaccurate(CheckFailed):
    """The outputs have the right shapes but differ too much, as on a processor with other low-precision arithmetic."""


def check_golden(capability: str, network: Network, golden: Golden, precision: Precision) -> None:
    """Compare the outputs of the golden inputs with the recorded ones, which are float32.

    Raises CheckFailed, and TooInaccurate if only the values differ.
    """
    try:
        expected = [record.array() for record in golden.outputs]
        outputs = network.run(*(record.array() for record in golden.inputs))
    except (ValueError, InferenceFailed, OutOfMemory) as error:
        raise CheckFailed(f"{capability} fails on its golden rows: {error}") from error
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        raise CheckFailed(f"{capability} gives other shapes than its golden rows")
    low_precision = precision != "float32" and CAPABILITIES[capability].low_precision
    allowed = PIXEL_BOUND if low_precision else golden.tolerance
    difference = max(float(np.abs(a - b).max()) for a, b in zip(outputs, expected, strict=True))
    if not difference <= allowed:
        raise TooInaccurate(f"{capability} differs by {difference:.3g} from its golden rows, {allowed:.3g} is allowed")


def warm_up(network: Network, golden: Golden, max_rows: int, *, sequential: bool = False) -> bool:
    """Run batches until TorchScript has compiled the network; set the smallest sufficient `row_multiple`, and `row_ms`.

    Returns whether every row checked has the same bits alone, in batches of several sizes and at any position. If no
    multiple achieves that, the largest stays set. A sequential network is checked with fewer rows and sizes.
    """
    inputs = tuple(record.array() if sequential else _varied(record.array()) for record in golden.inputs)
    full = tuple(_repeated(each, max_rows) for each in inputs)
    for _ in range(1 if sequential else WARM_UP_PASSES):
        network.run(*(each[:1] for each in inputs))
        started = thread_time()
        network.run(*full)
        network.row_ms = 1000 * (thread_time() - started) / max_rows
    sizes = SEQUENTIAL_SIZES if sequential else SIZES
    if network.row_multiple > 1:  # a GPU runs every batch in one shape
        return _rows_agree(network, inputs, full, sizes)
    for multiple in ROW_MULTIPLES:
        network.row_multiple = multiple
        if _rows_agree(network, inputs, full, sizes):
            return True
    return False


def _rows_agree(network: Network, inputs: Inputs, full: Inputs, sizes: Sequence[int]) -> bool:
    whole = network.run(*inputs)
    if any(not _equal(_in_batches(network, inputs, size), whole) for size in sizes):
        return False
    rows = len(full[0])
    return _equal(network.run(*full), tuple(_repeated(output, rows) for output in whole))


def _varied(rows: NDArray[Any]) -> NDArray[Any]:
    """Four variants of each golden row: mirrored and shifted, and for labels shifted against the other inputs."""
    if rows.ndim == 1:
        return np.concatenate([np.roll(rows, shift) for shift in range(4)])
    mirrored = np.flip(rows, -1)
    return np.concatenate([rows, mirrored, np.roll(rows, 1, axis=-1), np.roll(mirrored, 1, axis=-1)])


def _repeated(rows: NDArray[Any], count: int) -> NDArray[Any]:
    return np.resize(rows, (count, *rows.shape[1:]))


def _in_batches(network: Network, inputs: Inputs, size: int) -> tuple[Rows, ...]:
    rows = len(inputs[0])
    parts = [network.run(*(each[first : first + size] for each in inputs)) for first in range(0, rows, size)]
    return tuple(np.concatenate(output) for output in zip(*parts, strict=True))


def _equal(ours: tuple[Rows, ...], theirs: tuple[Rows, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

"""Checks of a network before it serves: its golden rows, and whether a row has the same bits in every batch."""

from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.checkpoints.capabilities import CAPABILITIES
from app.checkpoints.manifest import PIXEL_BOUND, Golden, Precision
from app.errors import InferenceFailed, OutOfMemory
from app.inference.runtime import Network

# TorchScript profiles a method on the first call and optimizes it on the second.
WARM_UP_PASSES = 3
# Sizes of batches to compare with the full one; the primes leave a remainder for every tile size.
SIZES = (1, 2, 3, 5, 8, 13)
# Of a sequential network, whose passes take up to a second.
SEQUENTIAL_SIZES = (1, 3)
# Outputs with this many numbers per row show a difference in the last bit within a few rows; a logit may hide it.
IMAGE_NUMBERS, IMAGE_ROWS = 32, 4
# Row multiples to try, the cheapest first.
ROW_MULTIPLES = (1, 2, 4, 8, 16)

# One array an input or output, all with the same number of rows.
Arrays = tuple[NDArray[Any], ...]


class CheckFailed(Exception):
    """A network failed a check and must not serve. The text names the capability and the cause."""


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
    """Run a network until TorchScript has compiled it, then set its `row_ms` and `row_multiple`.

    Returns whether, with this multiple, every row checked has the same bits at any position of full and smaller
    batches. A sequential network is checked with fewer rows and batches.
    """
    rows = tuple(record.array() if sequential else _varied(record.array()) for record in golden.inputs)
    rows = _slice(rows, 0, max_rows)
    for _ in range(1 if sequential else WARM_UP_PASSES):
        network.run(*_slice(rows, 0, 1))
    started = thread_time()
    full = network.run(*_repeated(rows, max_rows))
    network.row_ms = 1000 * (thread_time() - started) / max_rows
    # A GPU runs every batch in one shape.
    for multiple in ROW_MULTIPLES if network.row_multiple == 1 else (network.row_multiple,):
        network.row_multiple = multiple
        if max_rows % multiple:  # the full batch is padded, too
            full = network.run(*_repeated(rows, max_rows))
        if _rows_are_equal(network, rows, full, sequential=sequential):
            return True
    return False


def _rows_are_equal(network: Network, rows: Arrays, full: Arrays, *, sequential: bool) -> bool:
    """Whether the rows of a full batch, which repeats `rows`, have the same bits at each place and in other sizes."""
    expected = _slice(full, 0, len(rows[0]))
    if not _equal(full, _repeated(expected, len(full[0]))):
        return False
    least = 1 if sequential else IMAGE_ROWS if expected[0][0].size >= IMAGE_NUMBERS else len(rows[0])
    compared = [(max(least, size), size) for size in (SEQUENTIAL_SIZES if sequential else SIZES)]
    return all(_equal(_in_batches(network, rows, count, size), _repeated(expected, count)) for count, size in compared)


def _in_batches(network: Network, rows: Arrays, count: int, size: int) -> Arrays:
    """The outputs of `count` rows in batches of `size`."""
    repeated = _repeated(rows, count)
    parts = [network.run(*_slice(repeated, first, size)) for first in range(0, count, size)]
    return tuple(np.concatenate(output) for output in zip(*parts, strict=True))


def _varied(rows: NDArray[Any]) -> NDArray[Any]:
    """Four variants of each golden row: mirrored and shifted, and for labels shifted against the other inputs."""
    if rows.ndim == 1:
        return np.concatenate([np.roll(rows, shift) for shift in range(4)])
    mirrored = np.flip(rows, -1)
    return np.concatenate([rows, mirrored, np.roll(rows, 1, axis=-1), np.roll(mirrored, 1, axis=-1)])


def _slice(arrays: Arrays, first: int, count: int) -> Arrays:
    return tuple(each[first : first + count] for each in arrays)


def _repeated(arrays: Arrays, count: int) -> Arrays:
    return tuple(np.resize(each, (count, *each.shape[1:])) for each in arrays)


def _equal(ours: Arrays, theirs: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

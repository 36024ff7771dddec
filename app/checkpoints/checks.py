"""What a network must show before it serves: its golden rows, and how equal its rows are. Knows no files."""

import numpy as np

from app.checkpoints.capabilities import CAPABILITIES
from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.manifest import PIXEL_BOUND, Golden, Precision
from app.errors import InferenceFailed, OutOfMemory
from app.inference.runtime import Inputs, Labelled, Network, Rows

# TorchScript profiles a method on its first call and optimises it on the second.
WARM_UP_PASSES = 3
# Batches of each size are compared; the primes leave something over whatever the kernels' tiles are.
SIZES = (1, 2, 3, 5, 8, 13)
# Paddings to try, the cheapest first.
ROW_MULTIPLES = (1, 2, 4, 8)


class CheckFailed(Exception):
    """A network that must not serve. The text names the capability and what is wrong with it."""


class TooFarOff(CheckFailed):
    """A network whose outputs are of the right kind and differ by too much, as processors do in low precision."""


def check_golden(capability: Capability, network: Network, golden: Golden, precision: Precision) -> None:
    """Recorded inputs must give the recorded outputs. Raises CheckFailed, and TooFarOff where only the values differ.

    The outputs were recorded in float32. Images of another precision may be PIXEL_BOUND away from them.
    """
    try:
        expected = [record.array() for record in golden.outputs]
        (outputs,) = network.compute([golden_rows(golden)])
    except (ValueError, InferenceFailed, OutOfMemory) as error:
        raise CheckFailed(f"{capability} fails on its golden rows: {error}") from error
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        raise CheckFailed(f"{capability} gives other shapes than its golden rows have")
    allowed = PIXEL_BOUND if precision != "float32" and CAPABILITIES[capability].low_precision else golden.tolerance
    difference = max(float(np.abs(a - b).max()) for a, b in zip(outputs, expected, strict=True))
    if not difference <= allowed:
        raise TooFarOff(f"{capability} differs by {difference:.3g} from its golden rows, {allowed:.3g} is allowed")


def warm_up(network: Network, golden: Golden, max_rows: int) -> bool:
    """Run batches until nothing is compiled any more, and find the padding that makes rows equal.

    Sets `network.row_multiple` to the cheapest padding with which every row checked is the same bits alone, in
    batches of several sizes and at any place in them. Whether there is one; where there is none, the largest
    that was tried stays set.
    """
    rows = varied(golden_rows(golden))
    full = repeated(rows, max_rows)
    for _ in range(WARM_UP_PASSES):
        network.compute([rows[:1]])
        network.compute([full])
    if network.row_multiple > 1:  # the device has one shape for all
        return rows_agree(network, rows, full)
    for multiple in ROW_MULTIPLES:
        network.row_multiple = multiple
        if rows_agree(network, rows, full):
            return True
    return False


def golden_rows(golden: Golden) -> Inputs:
    """The recorded inputs as what a network takes. Raises ValueError for a damaged record."""
    rows, *labels = (record.array() for record in golden.inputs)
    return Labelled(rows, labels[0]) if labels else rows


def rows_agree(network: Network, rows: Inputs, full: Inputs) -> bool:
    """Whether `rows` give the same bits in batches of every size in SIZES, and within `full`."""
    alone = _batched(network, rows, len(rows))
    if any(not _equal(_batched(network, rows, size), alone) for size in SIZES):
        return False
    together = _batched(network, full, len(full))
    return _equal(together, [np.resize(output, (len(full), *output.shape[1:])) for output in alone])


def varied(rows: Inputs) -> Inputs:
    """Golden rows (N, ...) and three mirrored forms of each: 4 N rows of the same kind, to have more of them.

    With labels, every form of a row has another row's label.
    """
    if isinstance(rows, Labelled):
        labels = np.concatenate([np.roll(rows.labels, shift) for shift in range(4)])
        return Labelled(_mirrored(rows.rows), labels)
    return _mirrored(rows)


def repeated(rows: Inputs, count: int) -> Inputs:
    """The rows again and again, `count` of them."""
    if isinstance(rows, Labelled):
        return Labelled(np.resize(rows.rows, (count, *rows.rows.shape[1:])), np.resize(rows.labels, count))
    return np.resize(rows, (count, *rows.shape[1:]))


def _mirrored(rows: Rows) -> Rows:
    turned = np.flip(rows, -1)
    return np.concatenate([rows, turned, np.roll(rows, 1, axis=-1), np.roll(turned, 1, axis=-1)])


def _batched(network: Network, rows: Inputs, size: int) -> list[Rows]:
    """Each output for all `rows`, computed in batches of `size`."""
    parts = [network.compute([rows[first : first + size]])[0] for first in range(0, len(rows), size)]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _equal(ours: list[Rows], theirs: list[Rows]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

"""What a network must show before it serves."""

import numpy as np
import pytest
import torch

from app.checkpoints.checks import CheckFailed, check_golden, rows_agree, warm_up
from app.checkpoints.manifest import PIXEL_BOUND, Golden, TensorRecord
from app.inference.latents import normal_rows
from app.inference.runtime import Network, Rows

LATENTS = normal_rows(0, 0, 4, 3)


def golden(outputs: Rows) -> Golden:
    return Golden(inputs=(TensorRecord.of(LATENTS),), outputs=(TensorRecord.of(outputs),), tolerance=1e-4)


def off_by(difference: float) -> Network:
    return Network(lambda rows: (rows + difference,))


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
def test_only_images_of_a_lower_precision_may_be_further_from_their_golden_rows(capability, precision, allowed):
    check_golden(capability, off_by(0.9 * allowed), golden(LATENTS), precision)
    for difference in (1.1 * allowed, -1.1 * allowed):
        with pytest.raises(CheckFailed, match=f"^{capability} differs by"):
            check_golden(capability, off_by(difference), golden(LATENTS), precision)


def tiled(tile: int) -> Network:
    """Rows that fill no tile of so many come out a bit larger, as those of matrix kernels do."""

    def forward(rows: torch.Tensor) -> tuple[torch.Tensor]:
        whole = len(rows) // tile * tile
        return (torch.cat([rows[:whole], torch.nextafter(rows[whole:], torch.tensor(torch.inf))]),)

    return Network(forward)


@pytest.mark.parametrize(("tile", "multiple"), [(1, 1), (2, 2), (3, 8), (4, 4), (8, 8)])
def test_warming_up_finds_the_cheapest_padding_that_makes_rows_equal(tile, multiple):
    network = tiled(tile)
    found = warm_up(network, golden(LATENTS), 32)
    assert network.row_multiple == multiple
    assert found == (tile != 3), "no multiple that is tried makes whole tiles of three"


def test_a_row_that_depends_on_its_place_is_seen():
    network = Network(lambda rows: (rows + torch.arange(len(rows))[:, None] * 1e-6,))
    assert not rows_agree(network, LATENTS, np.tile(LATENTS, (4, 1)))
    assert not warm_up(network, golden(LATENTS), 16)


def test_a_full_batch_is_compared_too():
    network = Network(lambda rows: (rows if len(rows) < 16 else torch.nextafter(rows, torch.tensor(9.0)),))
    assert rows_agree(network, LATENTS, np.tile(LATENTS, (3, 1)))
    assert not rows_agree(network, LATENTS, np.tile(LATENTS, (4, 1)))


def test_rows_with_labels_are_checked_with_them():
    labels = np.arange(4)
    recorded = Golden(
        inputs=(TensorRecord.of(LATENTS), TensorRecord.of(labels)),
        outputs=(TensorRecord.of(LATENTS + labels[:, None].astype(np.float32)),),
        tolerance=1e-4,
    )
    network = Network(lambda rows, labels: (rows + labels[:, None],))
    check_golden("generate", network, recorded, "float32")
    assert warm_up(network, recorded, 32)
    off_by_one = Network(lambda rows, labels: (rows + labels[:, None] + 1,))
    with pytest.raises(CheckFailed, match="differs by"):
        check_golden("generate", off_by_one, recorded, "float32")
    with_neighbour = Network(lambda rows, labels: (rows + labels.roll(1)[:, None],))
    assert not warm_up(with_neighbour, recorded, 32)


def test_a_network_of_one_shape_keeps_its_padding():
    network = Network(lambda rows: (rows,), row_multiple=32)
    assert warm_up(network, golden(LATENTS), 32)
    assert network.row_multiple == 32

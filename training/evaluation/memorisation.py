"""Whether generated images are copies of training images."""

import torch
from torch import Tensor

from training.data import to_unit_range

ROWS, COLUMNS = 500, 20_000


def nearest(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the Euclidean distance to the nearest of the others, and its index.

    Shapes: uint8 `(N, 1, H, W)` and `(M, 1, H, W)`, pixels scaled to [0, 1], to float32 `(N,)` and int64 `(N,)`.
    """
    distances, indices = [], []
    for batch in torch.split(images, ROWS):
        rows = to_unit_range(batch).flatten(1)
        least, index = torch.full((len(rows),), torch.inf), torch.zeros(len(rows), dtype=torch.int64)
        for start in range(0, len(others), COLUMNS):
            columns = to_unit_range(others[start : start + COLUMNS]).flatten(1)
            # |a - b|^2 without |a|^2, which is the same for every b.
            found = torch.addmm(columns.square().sum(dim=1), rows, columns.T, alpha=-2).min(dim=1)
            index = torch.where(found.values < least, found.indices + start, index)
            least = torch.minimum(least, found.values)
        # Computed again: the sums above lose the precision of distances near 0.
        distances.append((rows - to_unit_range(others[index]).flatten(1)).norm(dim=1))
        indices.append(index)
    return torch.cat(distances), torch.cat(indices)

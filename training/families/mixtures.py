"""Gaussian mixtures, one per class, as a network from noise to latents."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped]
from torch import Tensor, nn

from training.data import batches, to_unit_range
from training.learner import TrainingSet

ROWS = 500
# Rows that a component needs, per dimension, for a meaningful covariance.
ROWS_PER_DIMENSION = 4


class Mixtures(nn.Module):
    """Noise `(B, D + 1)` from N(0, I) and labels int64 `(B,)` to draws from the label's mixture, `(B, D)`.

    The last column selects the component: it is compared with the normal quantiles of the cumulative weights. The
    others are multiplied by the Cholesky factor of the component and added to its mean. All operations are elementwise,
    so that a row does not depend on the batch composition.
    """

    def __init__(self, thresholds: Tensor, means: Tensor, factors: Tensor) -> None:
        """Shapes: `(classes, K - 1)`, `(classes, K, D)` and `(classes, K, D, D)`, lower triangular."""
        super().__init__()
        self.thresholds = nn.Parameter(thresholds, requires_grad=False)
        self.means = nn.Parameter(means, requires_grad=False)
        self.factors = nn.Parameter(factors, requires_grad=False)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """A temperature scales all columns but the last."""
        width = noise.shape[1] - 1
        component = (noise[:, width:] > self.thresholds[labels]).sum(dim=1)  # (B,)
        latents = self.means[labels, component]
        factors = self.factors[labels, component]  # (B, D, D)
        for column in range(width):
            latents = latents + factors[:, :, column] * noise[:, column : column + 1]
        return latents


@torch.no_grad()
def fit_to_codes(
    encode: Callable[[Tensor, Tensor], Tensor], training_set: TrainingSet, classes: int, components: int, seed: int
) -> Mixtures:
    """One mixture for each class, fitted to the codes of the training images.

    `encode` takes images float32 `(B, 1, H, W)` in [0, 1] and labels int64 `(B,)`, both on the CPU, to codes `(B, D)`.
    Source: P. Ghosh et al., "From Variational to Deterministic Autoencoders", 2020, arXiv:1903.12436, section 4.
    """
    codes = torch.cat([encode(to_unit_range(rows), own).cpu() for rows, own in batches(ROWS, *training_set)])
    return fit_mixtures(codes, training_set[1].cpu(), classes, components, seed)


def fit_mixtures(latents: Tensor, labels: Tensor, classes: int, components: int, seed: int) -> Mixtures:
    """Fit `components` full-covariance Gaussians to the latents `(N, D)` of each class, labels int64 `(N,)`.

    A class with few rows gets fewer components; one with fewer than two rows gets the standard normal distribution.
    """
    width = latents.shape[1]
    thresholds = torch.full((classes, components - 1), torch.inf)
    means = torch.zeros(classes, components, width)
    factors = torch.eye(width).repeat(classes, components, 1, 1)
    for label in range(classes):
        rows = latents[labels == label].numpy()
        if len(rows) < 2:
            continue
        fitting = max(1, min(components, len(rows) // (ROWS_PER_DIMENSION * width)))
        mixture = GaussianMixture(fitting, reg_covar=1e-3, random_state=seed % 2**32)
        with warnings.catch_warnings():
            # A mixture that has not quite converged after a hundred iterations is good enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Harmless on machines that do not report their cores.
            warnings.filterwarnings("ignore", message="Could not find the number of physical cores")
            mixture.fit(rows)
        borders = torch.from_numpy(np.cumsum(mixture.weights_)[:-1])
        thresholds[label, : fitting - 1] = torch.special.ndtri(borders).float()
        means[label, :fitting] = torch.from_numpy(mixture.means_).float()
        factors[label, :fitting] = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)).float()
    return Mixtures(thresholds, means, factors)

"""How far generated images are from real ones, in features.

Features are float32 `(N, D)`, those of generated images first. Density and coverage are computed here, since no
maintained library has them; torch-fidelity computes the other distances.
"""

import math

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # type: ignore[import-untyped]
from torch_fidelity.metric_prc import prc_features_to_metric  # type: ignore[import-untyped]

from training.evaluation.feature_extractor import FeatureExtractor

# As in the papers that the functions cite.
PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
ROWS = 2500


class Comparison:
    """Quick figures of images against fixed real ones, of one seed: to choose among epochs or sampling controls."""

    def __init__(self, extractor: FeatureExtractor, real: Tensor) -> None:
        """`real` images are uint8 `(M, 1, H, W)`."""
        self._extractor = extractor
        self._real = extractor.features(real)

    def figures(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Figures of uint8 images `(N, 1, H, W)`, comparable for equal N.

        `labels`, int64 `(N,)`, are the requested ones. They are needed for `label_agreement`.
        """
        features = self._extractor.features(images)
        figures = distance_precision_recall(features, self._real)
        if labels is not None:
            figures["label_agreement"] = label_agreement(self._extractor.probabilities(features), labels)
        return figures


def measure(images: Tensor, real: Tensor, extractor: FeatureExtractor) -> dict[str, float]:
    """All figures of uint8 images `(N, 1, H, W)` against real features `(M, 84)`."""
    features = extractor.features(images)
    density, coverage = density_coverage(features, real)
    return distance_precision_recall(features, real) | {
        "density": density,
        "coverage": coverage,
        "class_balance": class_balance(extractor.probabilities(features)),
    }


def distance_precision_recall(generated: Tensor, real: Tensor) -> dict[str, float]:
    """Frechet distance, precision and recall by their names."""
    precision, recall = precision_recall(generated, real)
    return {"frechet_distance": frechet_distance(generated, real), "precision": precision, "recall": recall}


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """Squared Frechet distance of the normal distributions fitted to both sets; 0 for equal sets.

    Source: M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule...", 2017, arXiv:1706.08500. It falls with
    the number of images even for a perfect model: compare it with the floor of the same number of images.
    """
    statistics = [fid_features_to_statistics(features.double()) for features in (generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """The share of generated rows in the manifold of the real ones, and of real rows in that of the generated ones.

    A manifold is the union of the balls around each row whose radius is the distance to its third neighbour. Source: T.
    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019, arXiv:1904.06991.
    """
    measured = prc_features_to_metric(
        generated,
        real,
        prc_neighborhood=min(PRECISION_NEIGHBOURS, len(generated) - 1, len(real) - 1),
        prc_batch_size=ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return float(measured["precision"]), float(measured["recall"])


def density_coverage(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """The relative number of balls of real rows that contain a generated row, and the share of balls that contain any.

    The radius of a ball is the distance of a real row to its fifth neighbour. Density is around 1 for samples of one
    distribution and may exceed it; coverage is in [0, 1] and below 1 even for a perfect model. Source: M. F. Naeem et
    al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, arXiv:2002.09797, equations 3 and 4.
    """
    neighbours = min(DENSITY_NEIGHBOURS, len(real) - 1)
    inside, covered = 0, 0
    for rows in torch.split(real, ROWS):
        # The first neighbour of a row is the row itself.
        radii = torch.cdist(rows, real).kthvalue(neighbours + 1, dim=1).values
        held = torch.cdist(rows, generated) < radii[:, None]
        inside += int(held.sum())
        covered += int(held.any(dim=1).sum())
    return inside / (neighbours * len(generated)), covered / len(real)


def class_balance(probabilities: Tensor) -> float:
    """Entropy of the frequencies of the likeliest classes over its maximum: 1 for equal ones, 0 for a single class."""
    classes = probabilities.shape[1]
    if classes == 1:
        return 1.0
    shares = torch.bincount(probabilities.argmax(dim=1), minlength=classes).double() / len(probabilities)
    return float(torch.special.entr(shares).sum() / math.log(classes))


def label_agreement(probabilities: Tensor, labels: Tensor) -> float:
    """The share of images whose likeliest class is the requested label, int64 `(N,)`."""
    return float((probabilities.argmax(dim=1) == labels).double().mean())

"""Figures of generated images by another classifier than that of the protocol.

The classifier of the protocol also chose the best epoch and the contrast of a model. Another one, which took no part in
these choices, may judge the model worse.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.accuracy import MIN_PROBABILITY
from training.evaluation.feature_extractor import Classifier
from training.evaluation.fidelity import frechet_distance, label_agreement
from training.evaluation.figures import over_seeds
from training.evaluation.reference import IMAGES, label_agreements, real_draws
from training.generation import balanced_labels, draw_images, gives_labels

BATCH = 500


class ArchivedClassifier:
    """The capability `classify` of an archive. Its features are the logarithms of the probabilities."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 images `(N, 1, H, W)` to float32 `(N, classes)`."""
        batches = [self._archive.classify(to_unit_range(batch)) for batch in torch.split(images, BATCH)]
        return torch.cat(batches).clamp(min=MIN_PROBABILITY).log()

    def probabilities(self, features: Tensor) -> Tensor:
        """Features to probabilities, float32 `(N, classes)` both."""
        return features.exp()


def held_out_figures(
    archive: nn.Module, manifest: Manifest, dataset: Dataset, classifier: Classifier, seeds: Sequence[int]
) -> dict[str, Figure]:
    """Frechet distance and label agreement of generated images, with those of real images by the same classifier.

    Images, seeds and draws of real images are those of the protocol. Raises NotANumber.
    """
    count, labelled = min(IMAGES, len(dataset.test_images)), gives_labels(manifest)
    labels = balanced_labels(count, len(dataset.classes))
    generated = [classifier.features(draw_images(archive, manifest, labels, seed)) for seed in seeds]
    test = classifier.features(dataset.test_images[:count])
    draws = real_draws(dataset.train_labels, count, balanced=labelled)
    figures = {
        "frechet_distance": over_seeds(
            [frechet_distance(features, test) for features in generated],
            [frechet_distance(classifier.features(dataset.train_images[rows]), test) for rows in draws],
            unit="squared distance in features of the other classifier",
            better="lower",
        )
    }
    if labelled:
        figures["label_agreement"] = over_seeds(
            [label_agreement(classifier.probabilities(features), labels) for features in generated],
            label_agreements(dataset, classifier, count),
            unit="fraction",
            better="higher",
        )
    return figures

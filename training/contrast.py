"""The contrast of generated images: one factor on the logits of their pixels, chosen at export on training images.

Generated digits have softer edges than real ones, and near its floor the Frechet distance mostly measures that. One
number corrects most of it. Only `generate` has it: `decode`, and with it reconstructions and the ELBO, is the trained
network.
"""

import logging

import torch
from torch import Tensor

from training.archive import EagerArchive
from training.evaluation.feature_extractor import FeatureExtractor
from training.evaluation.fidelity import frechet_distance
from training.fast_layers import ToImages
from training.generation import draw_images, quantised
from training.learner import Learner, TrainingSet
from training.monitoring import SEED

log = logging.getLogger(__name__)

CONTRASTS = tuple(tenths / 10 for tenths in range(10, 31))
IMAGES = 10_000


def adjust_contrast(
    archive: EagerArchive, learner: Learner, training_set: TrainingSet, extractor: FeatureExtractor | None
) -> float:
    """Set the contrast of `generate`, in its last layer, to that of the least Frechet distance; returns it.

    It stays 1 without a classifier of the images: there is none of the data, or the model makes images of another size.
    Raises NotANumber.
    """
    if extractor is None or learner.image_shape != training_set[0].shape[1:]:
        return 1.0
    distances = contrast_distances(archive, learner, training_set, extractor)
    contrast = min(distances, key=distances.__getitem__)
    _last_layer(archive).contrast = contrast
    log.info("contrast %.1f: Frechet distance %.2f, %.2f without it", contrast, distances[contrast], distances[1.0])
    return contrast


def contrast_distances(
    archive: EagerArchive, learner: Learner, training_set: TrainingSet, extractor: FeatureExtractor
) -> dict[float, float]:
    """The Frechet distance of generated images to training images under each of CONTRASTS.

    The images have the labels of the training images, where the model or its prior takes labels. Their logits are drawn
    once.
    """
    images, labels = (part[:IMAGES] for part in training_set)
    logits, real = _pixel_logits(archive, learner, labels), extractor.features(images)
    return {
        contrast: frechet_distance(extractor.features(quantised(torch.sigmoid(contrast * logits))), real)
        for contrast in CONTRASTS
    }


def _pixel_logits(archive: EagerArchive, learner: Learner, labels: Tensor) -> Tensor:
    """The input of the last layer of `generate`, float32 `(N, 1, H, W)`, for one image of each label."""
    logits: list[Tensor] = []
    hook = _last_layer(archive).register_forward_pre_hook(lambda _, inputs: logits.append(inputs[0]))
    try:
        draw_images(archive, learner, labels, SEED)
    finally:
        hook.remove()
    return torch.cat(logits)


def _last_layer(archive: EagerArchive) -> ToImages:
    (layer,) = (module for module in archive.networks["generate"].modules() if isinstance(module, ToImages))
    return layer

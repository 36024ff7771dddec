"""The contrast of generated images: one factor on their pixels, chosen at export on training images.

Generated digits have softer edges than real ones, and near its floor the Frechet distance mostly measures that. One
number corrects most of it. Only `generate` has it: `decode`, and with it reconstructions and the ELBO, is the trained
network.
"""

import copy
import logging

import torch
from torch import Tensor

from training.archive import EagerArchive
from training.evaluation.feature_extractor import FeatureExtractor
from training.evaluation.fidelity import frechet_distance
from training.fast_layers import ContrastLayer
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

    The images have the labels of the training images, where the model takes labels, and are drawn once.
    """
    images, labels = (part[:IMAGES] for part in training_set)
    inputs, real = _inputs_of_last_layer(archive, learner, labels), extractor.features(images)
    layer, distances = copy.deepcopy(_last_layer(archive)), {}
    for contrast in CONTRASTS:
        layer.contrast = contrast
        distances[contrast] = frechet_distance(extractor.features(quantised(layer(inputs))), real)
    return distances


def _inputs_of_last_layer(archive: EagerArchive, learner: Learner, labels: Tensor) -> Tensor:
    """What the last layer of `generate` makes images of, float32 `(N, 1, H, W)`, for one image of each label."""
    batches: list[Tensor] = []
    hook = _last_layer(archive).register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0]))
    try:
        draw_images(archive, learner, labels, SEED)
    finally:
        hook.remove()
    return torch.cat(batches)


def _last_layer(archive: EagerArchive) -> ContrastLayer:
    (layer,) = (module for module in archive.networks["generate"].modules() if isinstance(module, ContrastLayer))
    return layer

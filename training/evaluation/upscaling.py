"""Figures of archives that upscale, on small versions of the test images."""

from typing import Any

import torch
from torch import Tensor

from app.checkpoints.manifest import Figure, Manifest
from training.data import Dataset, to_unit_range
from training.evaluation.feature_extractor import FeatureExtractor
from training.evaluation.fidelity import frechet_distance, label_agreement
from training.evaluation.figures import over_images
from training.evaluation.resizing import area_averages, bicubic, size_text
from training.generation import quantised

BATCH = 250
# Least mean squared error: 8-bit images may be equal.
MIN_ERROR = 1e-10


@torch.no_grad()
def upscaling_figures(
    archive: Any, manifest: Manifest, dataset: Dataset, extractor: FeatureExtractor | None
) -> dict[str, Figure]:
    """Figures of the upscaled test images beside those of bicubic interpolation, the ceiling.

    Inputs are area averages of the test images, inputs and results are in 8 bits. Without an extractor of the larger
    size only pixels are compared.
    """
    before, after = manifest.input_shape, manifest.image.shape
    small, originals = (area_averages(dataset.test_images, shape) for shape in (before, after))
    ours = torch.cat([quantised(archive.upscale(to_unit_range(batch))) for batch in torch.split(small, BATCH)])
    plain = bicubic(small, after)
    sizes = f"{size_text(before)} to {size_text(after)}"
    ceiling = {"bicubic": float(psnr(plain, originals).mean())}
    figures = {"psnr": over_images(psnr(ours, originals), unit=f"dB, {sizes}", better="higher", ceilings=ceiling)}
    if extractor is None:
        return figures
    real, made, interpolated = (extractor.features(images) for images in (originals, ours, plain))
    right, upscaled_right, bicubic_right = (
        label_agreement(extractor.probabilities(features), dataset.test_labels)
        for features in (real, made, interpolated)
    )
    return figures | {
        "upscaled_accuracy": Figure(
            value=upscaled_right,
            unit=f"fraction, {sizes}",
            better="higher",
            floor=right,
            ceilings={"bicubic": bicubic_right},
        ),
        "upscaled_frechet_distance": Figure(
            value=frechet_distance(made, real),
            unit=f"squared distance in features, {sizes}",
            better="lower",
            floor=0,
            ceilings={"bicubic": frechet_distance(interpolated, real)},
        ),
    }


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: uint8 `(N, 1, H, W)` twice to float64 `(N,)`, at most 100."""
    errors = (to_unit_range(images) - to_unit_range(originals)).double().square().flatten(1).mean(dim=1)
    return -10 * errors.clamp(min=MIN_ERROR).log10()

"""Figures of enlarged test images."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app.checkpoints.manifest import ImageForm
from training.evaluation.upscaling import psnr, upscaling_figures


class Bicubic:
    """Enlarges by bicubic interpolation, four times."""

    def upscale(self, images: Tensor) -> Tensor:
        return functional.interpolate(images, scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.fixture
def upscaler(manifest):
    """The manifest of a model from 7x7 to 28x28 pixels."""
    small = ImageForm(shape=(1, 7, 7), normalization=None)
    return manifest.model_copy(update={"capabilities": ("upscale",), "input_image": small})


def test_an_archive_that_interpolates_has_the_figures_of_the_ceiling(digits, extractor, upscaler):
    figures = upscaling_figures(Bicubic(), upscaler, digits, extractor)
    assert set(figures) == {"psnr", "upscaled_accuracy", "upscaled_frechet_distance"}
    for figure in figures.values():
        assert figure.value == pytest.approx(figure.ceilings["bicubic"])
        assert figure.unit.endswith(", 7x7 to 28x28")
    assert figures["upscaled_frechet_distance"].value > 1
    assert figures["upscaled_accuracy"].floor == 1  # of the originals, which the classifier knows


def test_without_a_classifier_only_pixels_are_compared(dataset, upscaler):
    assert set(upscaling_figures(Bicubic(), upscaler, dataset, None)) == {"psnr"}


def test_the_ratio_is_that_of_the_formula_for_each_image_and_finite_for_equal_ones():
    originals = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images = originals.clone()
    images[0, 0, 0, 0] = 51  # an error of 0.2 in one of sixteen pixels
    assert psnr(images, originals).tolist() == pytest.approx([26.0206, 100], abs=1e-3)

"""The black and white test images that every model of binarised images is measured on."""

import torch
from torch import Tensor

from training.data import to_unit_range

SEED = 0


def fixed_binarisation(images: Tensor) -> Tensor:
    """uint8 images to 0 and 1, float32, the same at each call: the grey value of a pixel is its probability of 1.

    Source: R. Salakhutdinov, I. Murray, "On the Quantitative Analysis of Deep Belief Networks", 2008.
    """
    return torch.bernoulli(to_unit_range(images), generator=torch.Generator().manual_seed(SEED))

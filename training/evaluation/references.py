"""What stands in for a perfect model and for useless ones. Knows no models and no figures."""

import torch
from torch import Tensor
from torchvision.transforms import functional  # type: ignore[import-untyped]

from training.data import Dataset

BLUR = 1.5  # standard deviation in pixels


def real_images(dataset: Dataset, count: int) -> Tensor:
    """The floor: training images drawn at random, all where there are fewer, uint8 `(N, 1, H, W)`."""
    order = torch.randperm(len(dataset.train_images), generator=torch.Generator().manual_seed(0))
    return dataset.train_images[order[:count]]


def ceilings(dataset: Dataset, count: int) -> dict[str, Tensor]:
    """Useless models by name, uint8 `(N, 1, H, W)` with N at most `count`.

    Noise is even over all greys; blurred images are those of the floor under a Gaussian of `BLUR`; one class is the
    first, of training images.
    """
    real = real_images(dataset, count)
    noise = torch.randint(256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    size = 2 * round(3 * BLUR) + 1
    blurred: Tensor = functional.gaussian_blur(real.float(), [size, size], [BLUR, BLUR])
    return {
        "noise": noise,
        "blurred": blurred.round().to(torch.uint8),
        "one_class": dataset.train_images[dataset.train_labels == 0][:count],
    }

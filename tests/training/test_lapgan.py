"""The Laplacian pyramid of GANs: the pyramid and the levels."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from training.families.lapgan import (
    SIZES,
    LapganConfig,
    LapganLearner,
    PyramidGenerator,
    gaussian_pyramid,
    up,
)
from training.learner import DataShape


def learner(**config: Any) -> LapganLearner:
    torch.manual_seed(0)
    return LapganLearner(LapganConfig(detail_channels=16, **config), DataShape(), 30)


def test_the_pyramid_inverts_exactly():
    # Means and interpolation weights of 8-bit greys are multiples of 2 ** -8: float32 has no rounding error.
    greys = torch.randint(256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()
    levels = gaussian_pyramid(greys, 28)
    assert [level.shape[2] for level in levels] == list(SIZES)
    residuals = [fine - up(coarse) for coarse, fine in pairwise(levels)]  # eq. 3 of arXiv:1506.05751
    images = levels[0]
    for residual in residuals:
        images = up(images) + residual  # eq. 4
    assert torch.equal(images, greys)


def test_a_level_has_the_means_over_two_by_two_pixels_of_the_level_above(images):
    levels = gaussian_pyramid(images[:4], 28)
    for coarse, fine in pairwise(levels):
        assert torch.allclose(coarse[1, 0, 2, 3], fine[1, 0, 4:6, 6:8].mean())
    assert [level.shape[2] for level in gaussian_pyramid(images[:4], 14)] == [7, 14]


@torch.no_grad()
def test_generation_chains_the_levels_that_are_trained_apart():
    chain = learner().generator
    assert isinstance(chain, PyramidGenerator)
    latents, labels = torch.randn(5, 128), torch.arange(5)
    expected: Tensor = torch.sigmoid(chain.coarse(latents[:, :64], labels))
    for level, detail in enumerate(chain.details):
        enlarged = up(expected)
        expected = (enlarged + detail(latents[:, 64 + 32 * level : 96 + 32 * level], labels, enlarged)).clamp(0, 1)
    assert expected.shape == (5, 1, 28, 28)
    assert torch.allclose(chain(latents, labels), expected, atol=1e-6)


def test_each_level_learns_from_real_images_of_the_level_before(images):
    model, seen = learner(), []
    chain = model.generator
    assert isinstance(chain, PyramidGenerator)
    for detail in chain.details:
        detail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2].clone()))
    losses = model.step(images[None, :16], torch.zeros(1, 16, dtype=torch.long))
    real = gaussian_pyramid(images[:16], 28)
    assert all(torch.equal(given, up(coarse)) for given, coarse in zip(seen, real[:2], strict=True))
    assert set(losses) == {f"{network}_{size}" for network in ("discriminator", "generator") for size in SIZES}

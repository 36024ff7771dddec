"""Resampling of 8-bit images."""

from fractions import Fraction

import numpy as np
import pytest

from app.images.resize import block_means, enlarge


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_the_means_of_blocks_are_exact_and_halves_are_rounded_up(factor):
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 24), dtype=np.uint8)
    means = block_means(images, factor)
    assert means.shape == (2, 12 // factor, 24 // factor)
    for (i, row, column), mean in np.ndenumerate(means):
        block = images[i, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert mean == int(Fraction(int(block.sum()), block.size) + Fraction(1, 2))


def test_a_uniform_image_keeps_its_grey_enlarged():
    assert np.array_equal(enlarge(np.full((7, 14), 93, np.uint8), 4), np.full((28, 56), 93, np.uint8))

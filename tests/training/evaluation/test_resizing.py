"""Images at another size."""

import torch

from training.evaluation.resizing import area_averages, bicubic


def test_an_area_average_is_the_rounded_mean_of_its_pixels():
    images = torch.randint(256, (6, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = area_averages(images, (1, 7, 7))
    means = images.double().view(6, 1, 7, 4, 7, 4).mean(dim=(3, 5))
    assert small.dtype == torch.uint8
    assert (small.double() - means).abs().max() <= 0.5 + 1e-3
    assert torch.equal(area_averages(images, (1, 28, 28)), images)


def test_bicubic_interpolation_keeps_flat_images_and_their_range():
    flat = torch.full((1, 1, 7, 7), 77, dtype=torch.uint8)
    assert torch.equal(bicubic(flat, (1, 28, 28)), torch.full((1, 1, 28, 28), 77, dtype=torch.uint8))
    edge = torch.zeros(1, 1, 7, 7, dtype=torch.uint8)
    edge[..., 3:] = 255  # the kernel overshoots at an edge; wrapped bytes would be bright on the dark side
    assert bicubic(edge, (1, 28, 28))[..., :8].max() == 0

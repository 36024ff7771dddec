"""Draws of real images, and images that figures are compared with."""

import pytest
import torch

from training.evaluation.reference import FLOOR_DRAWS, ceiling_images, real_draws


@pytest.mark.parametrize("balanced", [True, False])
def test_draws_of_real_images_are_disjoint_and_there_are_as_many_as_fit(digits, balanced):
    for count, draws in ((90, 2), (50, 3), (250, 1), (1000, 1)):
        found = real_draws(digits.train_labels, count, balanced=balanced)
        assert len(found) == draws <= FLOOR_DRAWS
        assert {len(rows) for rows in found} == {min(count, 250)}
        assert len(torch.cat(found).unique()) == draws * min(count, 250)


def test_labels_of_a_draw_come_in_turn_or_as_often_as_in_the_data(digits):
    keep = torch.ones(250, dtype=torch.bool)
    keep[: 20 * 10 : 10] = False  # five zeros are left
    labels = digits.train_labels[keep]
    (rows,) = real_draws(labels, 90, balanced=True)
    assert labels[rows].tolist() == 5 * list(range(10))  # no image twice
    (rows,) = real_draws(labels, 230, balanced=False)
    assert (labels[rows] == 0).sum() == 5


def test_ceiling_images_are_noise_a_single_class_and_blurred_images(digits):
    bad = ceiling_images(digits, 20)
    assert {name: images.dtype for name, images in bad.items()} == dict.fromkeys(bad, torch.uint8)
    real = digits.train_images[real_draws(digits.train_labels, 20, balanced=False)[0]].float()
    assert torch.equal(bad["one_class"], digits.train_images[digits.train_labels == 0][:20])

    def difference(name: str) -> float:
        return float((bad[name].float() - real).abs().mean())

    assert 0 < difference("slightly_blurred") < difference("blurred") < difference("noise")
    for name in ("slightly_blurred", "blurred"):  # ink is moved, not lost
        assert bad[name].float().sum() == pytest.approx(float(real.sum()), rel=0.02)

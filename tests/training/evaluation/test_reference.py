"""Draws of real images, and images that are useless."""

import pytest
import torch

from training.evaluation.reference import FLOOR_DRAWS, real_draws, useless_images


@pytest.mark.parametrize("in_turn", [True, False])
def test_draws_of_real_images_are_disjoint_and_there_are_as_many_as_fit(digits, in_turn):
    for count, draws in ((90, 2), (50, 3), (250, 1), (1000, 1)):
        found = real_draws(digits.train_labels, count, in_turn=in_turn)
        assert len(found) == draws <= FLOOR_DRAWS
        assert {len(rows) for rows in found} == {min(count, 250)}
        assert len(torch.cat(found).unique()) == draws * min(count, 250)


def test_labels_of_a_draw_come_in_turn_or_as_often_as_in_the_data(digits):
    keep = torch.ones(250, dtype=torch.bool)
    keep[: 20 * 10 : 10] = False  # five zeros are left
    labels = digits.train_labels[keep]
    (rows,) = real_draws(labels, 90, in_turn=True)
    assert labels[rows].tolist() == 5 * list(range(10))  # no image twice
    (rows,) = real_draws(labels, 230, in_turn=False)
    assert (labels[rows] == 0).sum() == 5


def test_useless_images_are_noise_a_single_class_and_blurred_images(digits):
    useless = useless_images(digits, 20)
    assert {name: images.dtype for name, images in useless.items()} == dict.fromkeys(useless, torch.uint8)
    real = digits.train_images[real_draws(digits.train_labels, 20, in_turn=False)[0]].float()
    assert torch.equal(useless["one_class"], digits.train_images[digits.train_labels == 0][:20])

    def difference(name: str) -> float:
        return float((useless[name].float() - real).abs().mean())

    assert 0 < difference("slightly_blurred") < difference("blurred") < difference("noise")
    for name in ("slightly_blurred", "blurred"):  # ink is moved, not lost
        assert useless[name].float().sum() == pytest.approx(float(real.sum()), rel=0.02)

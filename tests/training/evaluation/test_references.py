"""The floor and the ceilings as images."""

import pytest
import torch

from training.evaluation.references import ceilings, real_images


def test_the_floor_is_of_training_images_each_once(dataset):
    chosen = real_images(dataset, 50)
    known = {image.numpy().tobytes() for image in dataset.train_images}
    found = {image.numpy().tobytes() for image in chosen}
    assert len(found) == len(chosen) == 50
    assert found <= known
    assert torch.equal(real_images(dataset, 50), chosen)
    assert len(real_images(dataset, 10_000)) == len(dataset.train_images)


def test_the_ceilings_are_noise_blurred_images_and_one_class(dataset):
    useless = ceilings(dataset, 50)
    assert set(useless) == {"noise", "blurred", "one_class"}
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (1, 28, 28) for images in useless.values())
    assert useless["noise"].float().mean() == pytest.approx(127.5, abs=2)
    assert torch.equal(useless["one_class"], dataset.train_images[dataset.train_labels == 0][:50])


def test_blurred_images_keep_their_ink_and_lose_their_contrast(dataset):
    sharp, blurred = real_images(dataset, 50).float(), ceilings(dataset, 50)["blurred"].float()
    assert float(blurred.sum()) == pytest.approx(float(sharp.sum()), rel=0.05)
    assert blurred.amax(dim=(1, 2, 3)).mean() < 0.8 * sharp.amax(dim=(1, 2, 3)).mean()

"""The classifier: its layers and its training."""

import pytest
import torch

from training.data import Dataset, to_unit_range
from training.evaluation.lenet5 import LeNet5, distort, train_classifier


def bright_or_dark(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=source)
    noise = torch.randint(100, (count, 1, 28, 28), generator=source)
    return (noise + 100 * labels[:, None, None, None]).to(torch.uint8), labels


@pytest.fixture(scope="module")
def shades() -> Dataset:
    """Images of two classes that are easy to distinguish."""
    return Dataset("shades", "1" * 64, *bright_or_dark(256, 1), *bright_or_dark(64, 2), ("dark", "bright"))


def test_the_network_is_lenet_5():
    network = LeNet5()
    sizes = {name: tuple(value.shape) for name, value in network.named_parameters() if name.endswith("weight")}
    assert sizes == {
        "conv1.weight": (6, 1, 5, 5),
        "conv2.weight": (16, 6, 5, 5),
        "dense1.weight": (120, 400),
        "dense2.weight": (84, 120),
        "to_logits.weight": (10, 84),
    }
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(network.to_logits(network.features(images)), network(images))


def test_it_learns_to_tell_classes_apart_in_a_few_steps(shades):
    # Without its warm-up the average would still be near the first weights after these 40 steps.
    network = train_classifier(shades, epochs=20, seed=0)
    assert not network.training
    verdicts = network(to_unit_range(shades.test_images)).argmax(dim=1)
    assert (verdicts == shades.test_labels).double().mean() == 1


def test_distorted_images_stay_in_range_and_move_by_up_to_two_pixels():
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 13:15, 13:15] = 1  # at the centre turning, scaling and shearing move nothing
    moved = distort(dot, torch.Generator().manual_seed(0))
    assert moved.shape == dot.shape
    assert 0 <= moved.min() <= moved.max() <= 1
    ys, xs = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    for places in (ys, xs):
        centre = (moved[:, 0] * places).sum(dim=(1, 2)) / moved.sum(dim=(1, 2, 3))
        assert (centre - 13.5).abs().max() < 2.5
        assert (centre - 13.5).abs().max() > 1.5

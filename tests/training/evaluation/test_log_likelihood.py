"""Likelihood figures of models whose likelihood is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from training.evaluation.log_likelihood import independent_bits, log_likelihood_figures


class Uniform:
    """Every 8-bit image is equally likely."""

    def log_likelihood(self, images: Tensor) -> Tensor:
        assert torch.equal((images * 255).round() / 255, images)
        return torch.full((len(images),), -images[0].numel() * math.log(256))


class Coins:
    """Every pixel is white with a probability that depends on the label."""

    def log_likelihood(self, images: Tensor, labels: Tensor) -> Tensor:
        assert set(images.unique().tolist()) == {0.0, 1.0}
        shares = (labels + 1) / 20
        logs: Tensor = Bernoulli(shares[:, None, None, None]).log_prob(images)
        return logs.sum(dim=(1, 2, 3))


def test_a_model_of_grey_images_is_measured_in_bits_per_dimension(digits, manifest):
    (figure,) = log_likelihood_figures(Uniform(), manifest, digits).values()
    assert figure.value == pytest.approx(8)
    assert figure.unit == "bits"
    assert figure.ceilings["uniform"] == 8
    assert 0 < figure.ceilings["independent_pixels"] < 8


def test_a_model_of_binarised_images_is_measured_in_nats_on_the_same_images_each_time(digits, manifest):
    config = manifest.training.config | {"binarised": True}
    record = manifest.training.model_copy(update={"config": config})
    binary = manifest.model_copy(update={"training": record, "conditional": True})
    figures = log_likelihood_figures(Coins(), binary, digits)
    assert set(figures) == {"negative_log_likelihood"}
    assert figures["negative_log_likelihood"].unit == "nats an image, given the label"
    assert figures["negative_log_likelihood"].ceilings["mean_image"] < figures["negative_log_likelihood"].value
    assert log_likelihood_figures(Coins(), binary, digits) == figures


def test_bits_of_independent_pixels_are_those_of_smoothed_frequencies():
    train = torch.tensor([[0, 9], [0, 9], [0, 7]], dtype=torch.uint8).view(3, 1, 1, 2)
    test = torch.tensor([[0, 7], [1, 9]], dtype=torch.uint8).view(2, 1, 1, 2)
    shares = [4 / 259, 2 / 259, 1 / 259, 3 / 259]
    assert independent_bits(train, test) == pytest.approx(-sum(map(math.log2, shares)) / 4)

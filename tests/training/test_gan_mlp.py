"""The GAN of perceptrons: maxout against its formula, its layers, and the way from training to the service."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import serving
from tests.training.conftest import manifest_of, serves_equal_rows
from training.families.adversarial import gradient_penalty
from training.families.gan_mlp import GanMlpConfig, GanMlpLearner, Maxout
from training.learner import DataShape
from training.trainer import train


def learner(**config: Any) -> GanMlpLearner:
    torch.manual_seed(0)
    return GanMlpLearner(GanMlpConfig(**config), DataShape(), 30)


@torch.no_grad()
def test_maxout_is_the_largest_of_its_linear_functions():
    torch.manual_seed(0)
    layer, x = Maxout(5, 3, 4), torch.randn(7, 5)
    weight, bias = layer.linear.weight.view(3, 4, 5), layer.linear.bias.view(3, 4)
    pieces = torch.stack([x @ weight[:, piece].T + bias[:, piece] for piece in range(4)])
    assert torch.allclose(layer(x), pieces.amax(dim=0), atol=1e-6)


def test_there_are_no_convolutions_and_no_batch_normalisation():
    assert not any(
        isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d) for module in learner().modules()
    )


def test_the_penalty_of_the_discriminator_has_gradients(images):
    model = learner(dropout=0.0)
    gradient_penalty(model.discriminator, images[:8]).backward()
    first = next(model.discriminator.parameters())
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0


@pytest.mark.usefixtures("one_thread")
def test_rows_do_not_depend_on_how_many_there_are(dataset):
    assert serves_equal_rows(learner(), dataset)


def test_a_trained_model_is_served(tiny, dataset):
    config = tiny("gan-mlp")
    train(config, dataset=dataset)
    assert manifest_of(config).capabilities == ("generate", "discriminate")
    with serving(models_dir=config.models_dir) as client:
        ours, again = (client.post("/generate", json={"n": count, "seed": 7}).json()["images"] for count in (2, 3))
        assert ours == again[:2]
        assert len(client.post("/score", json={"n": 2, "seed": 7}).json()["scores"]) == 2

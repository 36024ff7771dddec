"""The GAN of perceptrons: maxout against its formula, and its layers."""

import torch
from torch import nn

from training.families.gan_mlp import GanMlpConfig, GanMlpLearner, Maxout
from training.learner import DataShape


@torch.no_grad()
def test_maxout_is_the_largest_of_its_linear_functions():
    torch.manual_seed(0)
    layer, x = Maxout(5, 3, 4), torch.randn(7, 5)
    weight, bias = layer.linear.weight.view(3, 4, 5), layer.linear.bias.view(3, 4)
    pieces = torch.stack([x @ weight[:, piece].T + bias[:, piece] for piece in range(4)])
    assert torch.allclose(layer(x), pieces.amax(dim=0), atol=1e-6)


def test_there_are_no_convolutions_and_no_batch_normalisation():
    modules = GanMlpLearner(GanMlpConfig(), DataShape(), 30).modules()
    assert not any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d) for module in modules)

"""Rewritten networks compute the same function, and their rows do not depend on the size of the batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.families.discriminators import Discriminator
from training.families.gan import Generator, fast_generator
from training.families.vae import Decoder, Encoder, fast_decoder
from training.fast_layers import Dense, Spread, ToImages, ToPixels, Upsample, stable_rows


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def lively(module: Any) -> Any:
    """Random biases: zeros would hide errors."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.3)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("parts", [1, 2])
def test_upsampling_adds_up_the_parts_of_its_inputs(kernel, slope, parts):
    layer = lively(nn.ConvTranspose2d(6, 5, kernel, stride=2, padding=1, output_padding=4 - kernel))
    images = [torch.randn(3, 6, 7, 9) for _ in range(parts)]
    made = Upsample(layer, slope, torch.float32, parts=parts)(torch.cat(images, dim=1))
    expected = functional.leaky_relu(layer(sum(images)), slope)
    assert torch.allclose(made, expected, atol=1e-5)


@torch.no_grad()
def test_a_layer_divides_by_the_channel_scales_of_the_previous_one():
    images, scale = torch.randn(2, 6, 4, 4), 1 + torch.rand(6)
    scaled = images * scale[:, None, None]
    layer = lively(nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1))
    made = Upsample(layer, 0.2, torch.float32, input_scale=scale)(scaled)
    assert torch.allclose(made, functional.leaky_relu(layer(images), 0.2), atol=1e-5)
    last = lively(nn.Conv2d(6, 1, 3, padding=1))
    made = ToPixels(last.weight[0], last.bias, torch.float32, input_scale=scale)(scaled)
    assert torch.allclose(made, last(images), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_convolution_to_one_channel_is_computed_in_blocks(size):
    convolution = nn.Conv2d(5, 1, size, padding=size // 2)
    images = torch.randn(3, 5, 12, 8)
    made = ToPixels(convolution.weight[0], convolution.bias, torch.float32, input_scale=torch.ones(5))(images)
    assert torch.allclose(made, convolution(images), atol=1e-5)


@torch.no_grad()
def test_in_bfloat16_two_parts_keep_sixteen_bits_of_mantissa():
    dense, last = lively(nn.Linear(3, 5 * 16)), lively(nn.Conv2d(5, 1, 7, padding=3))
    latents = torch.randn(4, 3)
    first, rest = Spread(dense, 5, 4, 0.2, torch.bfloat16)(latents).float().chunk(2, dim=1)
    exact = functional.leaky_relu(dense(latents), 0.2).view(4, 5, 4, 4)
    assert torch.allclose(first + rest, exact, rtol=2**-15)
    assert not torch.allclose(first, exact, rtol=2**-10)
    kernels, rest = ToPixels(last.weight[0], last.bias, torch.bfloat16, input_scale=torch.ones(5)).weight.chunk(2)
    assert torch.allclose((kernels.float() + rest.float())[0, :, :7, :7], last.weight[0], rtol=2**-15)


@torch.no_grad()
@pytest.mark.parametrize(("make", "rewrite", "width"), [(Generator, fast_generator, 100), (Decoder, fast_decoder, 16)])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_a_rewritten_network_computes_the_same_function(make, rewrite, width, dtype, allowed):
    network = lively(make())
    latents = torch.randn(5, width)
    logits = rewrite(network, dtype)(latents)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, network(latents), atol=allowed * float(network(latents).abs().max()))


def assert_rows_do_not_depend_on_the_batch(network: nn.Module, rows: Tensor, sizes: range) -> None:
    together = network(rows)
    for size in sizes:
        made = torch.cat([network(chunk) for chunk in torch.split(rows, size)])
        assert torch.equal(made, together), f"in batches of {size}"


@torch.no_grad()
def test_rows_of_a_dense_layer_do_not_depend_on_how_many_there_are(one_thread):
    layer = nn.Linear(100, 6272)
    assert_rows_do_not_depend_on_the_batch(Dense(layer.weight, layer.bias), torch.randn(40, 100), range(1, 20))


@torch.no_grad()
def test_rows_of_the_sigmoid_do_not_depend_on_how_many_there_are(one_thread):
    logits = 4 * torch.randn(40, 1, 28, 28)
    assert_rows_do_not_depend_on_the_batch(ToImages(), logits, range(1, 20))
    assert torch.allclose(ToImages()(logits), logits.sigmoid(), atol=1e-6)


@torch.no_grad()
def test_networks_with_stable_rows_compute_the_same_function():
    images = torch.rand(5, 1, 28, 28)
    for network in (Discriminator().eval(), Encoder().eval(), nn.Sequential(nn.Flatten(), nn.Linear(784, 3))):
        expected = network(images)
        made = stable_rows(network)(images)
        for one, other in zip(made, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
        assert not any(isinstance(module, nn.Linear) for module in network.modules())

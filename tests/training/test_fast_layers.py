"""Rewritten networks compute the same function, and their rows do not depend on the size of the batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.families.gan import Generator, fast_generator
from training.families.vae import Decoder, fast_decoder
from training.fast_layers import Dense, ToImages


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
@pytest.mark.parametrize("contrast", [1.0, 1.3])
def test_rows_of_the_sigmoid_do_not_depend_on_how_many_there_are(one_thread, contrast):
    logits = 4 * torch.randn(40, 1, 28, 28)
    assert_rows_do_not_depend_on_the_batch(ToImages(contrast), logits, range(1, 20))
    assert torch.allclose(ToImages(contrast)(logits), (contrast * logits).sigmoid(), atol=1e-6)

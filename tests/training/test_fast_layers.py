"""Rewritten networks compute the same function, and their rows do not depend on the size of the batch."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import lively
from training.families.batch_norm import fold_batch_norm
from training.families.dcgan import DcganGenerator, fast_form
from training.families.gan import Generator, fast_generator
from training.families.vae import Decoder, fast_decoder
from training.fast_layers import Dense, ToImages


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "rewrite", "width"),
    [
        (partial(Generator, 100, 128, batch_norm=False), fast_generator, 100),
        (Decoder, fast_decoder, 16),
        (partial(DcganGenerator, 16, batch_norm=False), fast_form, 100),
    ],
    ids=["gan", "vae", "dcgan"],
)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_a_rewritten_network_computes_the_same_function(make, rewrite, width, dtype, allowed):
    network = lively(make())
    latents = torch.randn(5, width)
    logits = rewrite(network, dtype)(latents)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, network(latents), atol=allowed * float(network(latents).abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("make", [partial(Generator, 100, 128), partial(DcganGenerator, 16)], ids=["gan", "dcgan"])
def test_a_folded_generator_computes_the_same_function_without_batch_normalisation(make):
    network, latents = lively(make(batch_norm=True)), torch.randn(16, 100)
    folded = fold_batch_norm(network)
    assert torch.allclose(folded(latents), network(latents), atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not folded.training


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

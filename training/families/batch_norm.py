"""Batch normalisation of generators: its statistics estimated from the averaged weights, and folded into the layers."""

import copy
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Generator = TypeVar("Generator", bound=nn.Module)

BATCHES, ROWS = 16, 256
# No seed of the evaluation protocol: the statistics must not be estimated from the latents that are measured.
SEED = 2**31


def statistics_latents(network: nn.Module, latent_dim: int) -> Iterator[Tensor]:
    """Batches of latents `(ROWS, latent)` on the network's device to estimate its statistics from.

    A separate generator draws them, so that the random numbers of the training stay the same.
    """
    device = next(network.parameters()).device
    source = torch.Generator().manual_seed(SEED)
    for _ in range(BATCHES):
        yield torch.randn(ROWS, latent_dim, generator=source).to(device)


def estimate_batch_norm(network: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Set the running statistics of a network to those that its own weights give on `batches`, in place.

    The running statistics of training belong to the weights before averaging. Each batch holds the arguments of the
    network; without batch normalisation no batch is taken.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    network.train()
    if norms:
        with torch.no_grad():
            for batch in batches:
                network(*batch)
    network.eval()


def fold_batch_norm(generator: Generator) -> Generator:
    """A copy of a generator without batch normalisation that computes the same function in eval mode.

    Each batch normalisation of the generator, `NAME_norm`, must follow a linear layer or a transposed convolution
    `NAME`. Its running statistics are used.
    """
    folded = copy.deepcopy(generator).eval()
    for norm_name, norm in list(folded.named_children()):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        name = norm_name.removesuffix("_norm")
        layer = getattr(folded, name)
        setattr(folded, norm_name, nn.Identity())
        if isinstance(layer, nn.Linear):
            _scale_outputs(layer, norm)
        else:
            setattr(folded, name, fuse_conv_bn_eval(layer, norm, transpose=True))
    return folded


def _scale_outputs(layer: nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Fold into a linear layer whose outputs are the channels of small images, one after the other."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (channels,)
    shift = norm.bias - norm.running_mean * scale
    pixels = layer.out_features // len(scale)
    scale, shift = scale.repeat_interleave(pixels), shift.repeat_interleave(pixels)
    layer.weight.data.mul_(scale[:, None])
    layer.bias.data.mul_(scale).add_(shift)

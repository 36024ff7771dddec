"""Annealed importance sampling: the partition function of a restricted Boltzmann machine.

Source: R. Salakhutdinov, I. Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def inverse_temperatures() -> list[float]:
    """The 14,501 inverse temperatures of the paper, from 0 to 1, most of them near 1."""
    parts = [(0.0, 0.5, 500), (0.5, 0.9, 4000), (0.9, 1.0, 10_000)]
    return [low + (high - low) * i / count for low, high, count in parts for i in range(count)] + [1.0]


@torch.no_grad()
def anneal(
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    base_bias: Tensor,
    betas: Sequence[float],
    *,
    chains: int,
    source: torch.Generator,
) -> tuple[float, float]:
    """Estimate log Z of the machine of energy -b.v - c.h - v.W.h over binary units, in nats, and its standard error.

    Shapes: W `(visible, hidden)`, b `(visible,)`, c `(hidden,)`. `base_bias` `(visible,)` are the log-odds of the
    independent visible units that the chains start from. At inverse temperature beta the unnormalised distribution is

        p(v) = exp((1 - beta) a.v + beta b.v) * product over j of (1 + exp(beta (c_j + (v.W)_j)))

    with `base_bias` a. exp(log Z) is unbiased, so that log Z is too low rather than too high: a likelihood that it
    normalises is too good rather than too bad where `betas`, which rise from 0 to 1, are too few.
    """
    visible = _bits(base_bias.expand(chains, -1), source)
    logits = torch.addmm(hidden_bias, visible, weight)  # (chains, hidden)
    log_weights = torch.zeros(chains, dtype=torch.float64)
    for low, high in pairwise(betas):
        biases = (high - low) * (visible @ (visible_bias - base_bias))
        log_weights += biases + (functional.softplus(high * logits) - functional.softplus(low * logits)).sum(dim=1)
        hidden = _bits(high * logits, source)
        means = torch.addmm((1 - high) * base_bias + high * visible_bias, hidden, weight.t(), alpha=high)
        visible = _bits(means, source)
        logits = torch.addmm(hidden_bias, visible, weight)
    log_base = float(functional.softplus(base_bias.double()).sum()) + len(hidden_bias) * math.log(2)
    log_mean = float(log_weights.logsumexp(dim=0)) - math.log(chains)
    relative = torch.exp(log_weights - log_weights.max())
    return log_base + log_mean, float(relative.std() / relative.mean() / math.sqrt(chains))


def _bits(logits: Tensor, source: torch.Generator) -> Tensor:
    return (torch.rand(logits.shape, generator=source) < torch.sigmoid(logits)).float()

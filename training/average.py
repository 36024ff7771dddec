"""The moving average of weights that ships. Knows no family and no file."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average(AveragedModel):
    """A module whose weights follow those of another by an exponential moving average; buffers are copied.

    The first update copies the weights. Update t after it, counted from 1, keeps the share
    min(decay, (1 + t) / (10 + t)) of the average, so that an early average is not the first step's weights:
    a ninth of the steps done are what it reaches back to, and 1 / (1 - decay) at most. Source of the warm-up:
    TensorFlow's ExponentialMovingAverage, `num_updates`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, multi_avg_fn=_towards(decay))


def warmed_decay(decay: float, updates: int) -> float:
    """The share of the average that update number `updates` keeps, counted from 1 after the first copy."""
    return min(decay, (1 + updates) / (10 + updates))


def _towards(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(list(averages), list(weights), 1 - warmed_decay(decay, int(updates)))

    return update

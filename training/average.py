"""The exponential moving average of weights, which checkpoints contain."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average(AveragedModel):
    """A copy of a module whose weights are an exponential moving average; buffers are copied.

    The first update copies the weights. Update t after it, counted from 1, has the decay
    min(decay, (1 + t) / (10 + t)), so that early averages are not dominated by the first weights. Source of the
    warm-up: TensorFlow's ExponentialMovingAverage, `num_updates`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        @torch.no_grad()
        def update(averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
            warmed = min(decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(list(averages), list(weights), 1 - warmed)

        super().__init__(module, multi_avg_fn=update)

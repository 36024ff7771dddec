"""Learning rates over a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, total_steps: int, warm_up_steps: int = 0) -> LambdaLR:
    """Rates that rise linearly for some steps and fall to 0 along half a cosine, which is over all steps.

    Source: I. Loshchilov, F. Hutter, arXiv:1608.03983, eq. 5, without restarts.
    """

    def share(step: int) -> float:
        rising = min(1.0, (step + 1) / warm_up_steps) if warm_up_steps else 1.0
        return rising * 0.5 * (1 + math.cos(math.pi * min(step / total_steps, 1)))

    return LambdaLR(optimizer, share)

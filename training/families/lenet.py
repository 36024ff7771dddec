"""LeNet-5 as a checkpoint, with calibrated probabilities. The network is in `training.evaluation.lenet5`.

Source: Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section II.
"""

from typing import Literal

from pydantic import Field

from training.config import NAME_PATTERN
from training.evaluation.lenet5 import LeNet5
from training.families import Family
from training.families.classification import ClassificationConfig, ClassificationLearner
from training.learner import DataShape


class LenetConfig(ClassificationConfig):
    """LeNet-5, a convolutional classifier of 1998."""

    family: Literal["lenet"] = "lenet"
    name: str = Field("lenet", pattern=NAME_PATTERN)
    epochs: int = Field(24, ge=1)
    # The network is too small for bfloat16 to pay on a CPU.
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


class LenetLearner(ClassificationLearner):
    """LeNet-5 with its optimiser."""

    def __init__(self, config: LenetConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(config, LeNet5(data.classes), data, total_steps)


FAMILY = Family("lenet", LenetConfig, LenetLearner)

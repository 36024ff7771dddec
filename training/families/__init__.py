"""The families by name. A new family is one file here, one config and one line below."""

from training.config import CganConfig, CvaeConfig, GanConfig, TrainConfig, VaeConfig
from training.families.cgan import CganLearner
from training.families.cvae import CvaeLearner
from training.families.family import Learner
from training.families.gan import GanLearner
from training.families.vae import VaeLearner


def build_learner(config: TrainConfig, total_steps: int, classes: int) -> Learner:
    """The family's networks, freshly initialised from the global random state, on the CPU.

    Raises ValueError for a config of no known family.
    """
    match config:
        case VaeConfig():
            return VaeLearner(config, total_steps, classes)
        case CvaeConfig():
            return CvaeLearner(config, total_steps, classes)
        case GanConfig():
            return GanLearner(config, total_steps)
        case CganConfig():
            return CganLearner(config, total_steps, classes)
    raise ValueError(f"no family for {type(config).__name__}")

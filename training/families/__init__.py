"""The families, found by their files: a module here with a `FAMILY` is a family, any other is shared mathematics."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from training.config import TrainConfig
from training.learner import DataShape, Learner


@dataclass(frozen=True)
class Family:
    """A kind of model. `learner` takes a config, the shape of the data and the number of steps of the run."""

    name: str
    config: type[TrainConfig]
    learner: Callable[[Any, DataShape, int], Learner]


def families() -> dict[str, Family]:
    """All families by name, in alphabetical order. Imports their modules on first use."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    found: list[Family] = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.name: family for family in found}


def build_learner(config: TrainConfig, data: DataShape, total_steps: int) -> Learner:
    """The networks of a config's family, initialised from the global random state, on the CPU."""
    return families()[config.family].learner(config, data, total_steps)

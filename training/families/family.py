"""What every family gives the trainer: one step, one state, one archive. Knows no family."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Control, Prior

# uint8 images (N, 1, 28, 28) and their labels, int64 (N,)
TrainingSet = tuple[Tensor, Tensor]


class Learner(nn.Module, ABC):
    """The networks of a family together with their optimisers.

    The trainer drives it and knows nothing else of a family. A subclass registers its networks as
    submodules, its optimisers and schedules as attributes.
    """

    batches_per_step: int
    latent_dim: int
    # What the manifest says of the archive: whether its capabilities take labels, from which priors its latents
    # are drawn, the default first, and by what drawing is controlled.
    conditional: bool = False
    priors: tuple[Prior, ...] = ("normal",)
    sampling: tuple[Control, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Learn from images `(batches_per_step, B, 1, 28, 28)` in [0, 1]; losses by name, scalars.

        `labels` are the images' classes, int64 `(batches_per_step, B)`; unconditional families ignore them.
        """

    @property
    def noise_dim(self) -> int:
        """Columns of the noise that a latent is drawn from: a fitted prior picks its component by one more."""
        return self.latent_dim + ("fitted" in self.priors)

    @abstractmethod
    def archive(self, training_set: TrainingSet | None = None) -> nn.Module:
        """What was trained, as textbooks have it: self-contained, in eval mode, its methods the capabilities.

        What is fitted to the training set once the networks have learned is there only where it is given.
        """

    @abstractmethod
    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The form of `archive` that ships: the same capabilities, rewritten to compute faster.

        Where it makes images it computes in `dtype`, everywhere else in float32. It takes and gives float32.
        """

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes: lower precision where the run asks for it."""
        if self.compute_dtype == torch.float32:
            return nullcontext()
        device = next(self.parameters()).device
        return torch.autocast(device.type, dtype=self.compute_dtype)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All of them."""
        return [value for value in self._optimisation().values() if isinstance(value, torch.optim.Optimizer)]

    @property
    def has_schedule(self) -> bool:
        """Whether a learning rate follows the length of the run."""
        return any(isinstance(value, torch.optim.lr_scheduler.LRScheduler) for value in self._optimisation().values())

    def training_state(self) -> dict[str, Any]:
        """Everything a resumed run needs: weights, averages, optimisers and schedules."""
        return {"modules": self.state_dict()} | {
            name: value.state_dict() for name, value in self._optimisation().items()
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` gave. Raises KeyError or RuntimeError where it does not fit."""
        self.load_state_dict(state["modules"])
        for name, value in self._optimisation().items():
            value.load_state_dict(state[name])

    def _optimisation(self) -> dict[str, Any]:
        kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        return {name: value for name, value in vars(self).items() if isinstance(value, kinds)}

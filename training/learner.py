"""The interface between a family and the trainer: a training step, a state to resume from, a network per capability."""

import copy
import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import Control, Figure, Prior
from training.archive import EagerArchive, Networks
from training.average import Average
from training.data import Dataset
from training.fast_layers import stable_rows

# uint8 images (N, 1, H, W) and their labels, int64 (N,)
TrainingSet = tuple[Tensor, Tensor]


class DataShape(NamedTuple):
    """What a family needs to know of a data set to build its networks."""

    classes: int = 10  # 0 for unlabelled data
    image: tuple[int, int, int] = (1, 28, 28)  # channels, height, width

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The shape of a data set."""
        channels, height, width = dataset.train_images.shape[1:]
        return cls(len(dataset.classes), (channels, height, width))


class Learner(nn.Module, ABC):
    """The networks of a family together with their optimisers.

    A subclass registers its networks as submodules and its optimisers and schedules as attributes. The class
    attributes describe the archive and go into the manifest.
    """

    batches_per_step: int = 1
    latent_dim: int | None = None  # None for a model without latents
    conditional: bool = False  # whether capabilities take labels
    priors: tuple[Prior, ...] = ("normal",)  # of the latents; the first is the default
    sampling: tuple[Control, ...] = ()
    smooth_latents: bool = True  # whether images change gradually with their latents
    chooses_contrast: bool = False  # whether the export chooses a contrast, see `training.contrast`
    sequential: bool = False  # whether a pass has dozens of steps or hundreds, such as one per pixel

    def __init__(self, data: DataShape) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        # A subclass that makes or takes images of another shape than the data's sets these.
        self.image_shape = data.image
        self.input_shape = data.image

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Learn from images `(batches_per_step, B, 1, H, W)` in [0, 1]; returns scalar losses by name.

        `labels` are the classes of the images, int64 `(batches_per_step, B)`.
        """

    @abstractmethod
    def networks(self, training_set: TrainingSet) -> Networks:
        """The trained network of each capability, with the inputs and outputs of the capability table.

        Capabilities may share networks or layers. `training_set` is for densities fitted after training. The networks
        are compiled to TorchScript, which cannot read constants of a module: they hold theirs as attributes.
        """

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks | None:
        """The networks rewritten to compute faster, as they ship; None where there is no such form in `dtype`.

        `networks` is a copy that may be changed. Networks of capabilities with `low_precision` compute in `dtype`, all
        others in float32. Inputs and outputs stay float32.
        """
        if dtype != torch.float32:
            return None
        stable = {id(network): stable_rows(network) for network in networks.values()}
        return {capability: stable[id(network)] for capability, network in networks.items()}

    def figures(self, dataset: Dataset) -> dict[str, Figure]:  # noqa: ARG002 - there is nothing to measure
        """Figures of networks that the archive does not hold, by name; measured at the export."""
        return {}

    def archive(self, training_set: TrainingSet) -> EagerArchive:
        """A copy of the trained networks in eval mode, on the device of the learner."""
        return EagerArchive(copy.deepcopy(self.networks(training_set))).eval()

    def fast_archive(self, archive: EagerArchive, dtype: torch.dtype) -> EagerArchive | None:
        """The fast form of `archive`, which stays as it is; see `fast`."""
        networks = self.fast(copy.deepcopy(archive.networks), dtype)
        return None if networks is None else EagerArchive(networks).eval()

    @property
    def noise_dim(self) -> int | None:
        """Width of the noise that a latent is drawn from: a fitted prior has one more column for the component."""
        return None if self.latent_dim is None else self.latent_dim + ("fitted" in self.priors)

    def inputs(self, capability: str) -> tuple[Symbol, ...]:
        """The inputs of a capability, labels included."""
        return CAPABILITIES[capability].inputs_with_labels(conditional=self.conditional)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes: lower precision where the run asks for it."""
        if self.compute_dtype == torch.float32:
            return nullcontext()
        device = next(self.parameters()).device
        return torch.autocast(device.type, dtype=self.compute_dtype)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All optimisers."""
        return [value for value in self._optimisation().values() if isinstance(value, torch.optim.Optimizer)]

    def training_state(self) -> dict[str, Any]:
        """Everything a resumed run needs: weights, averages, optimisers and schedules."""
        return {"modules": self.state_dict()} | {
            name: value.state_dict() for name, value in self._optimisation().items()
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore a `training_state`. Raises KeyError or RuntimeError where it does not fit."""
        self.load_state_dict(state["modules"])
        for name, value in self._optimisation().items():
            value.load_state_dict(state[name])

    def _optimisation(self) -> dict[str, Any]:
        kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        return {name: value for name, value in vars(self).items() if isinstance(value, kinds)}


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float = math.inf) -> None:
    """One step of an optimiser down the gradient of a scalar loss.

    max_norm: the gradient of all weights of the optimiser together is scaled down to this norm.
    """
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if max_norm < math.inf:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, max_norm)
    optimizer.step()


class GradientLearner(Learner):
    """A learner with one optimiser, its schedule, and a moving average of the weights, which is exported."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: Average

    def descend(self, loss: Tensor, network: nn.Module, max_norm: float = math.inf) -> None:
        """A `gradient_step`, and one of the schedule and of the average of the weights of `network`."""
        gradient_step(self.optimizer, loss, max_norm)
        self.schedule.step()
        self.average.update_parameters(network)

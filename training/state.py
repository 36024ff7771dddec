"""The state of a run in one file, for resuming.

It holds weights, averages, optimisers and schedules, the step within the epoch with the sums of its losses, the global
random streams of every process, the history and the networks of the best epoch. The order of the rows needs no state:
it is a function of seed and epoch. The first line of the file is the SHA-256 of the rest, which PyTorch wrote.
"""

import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.checkpoints.files import write_atomically
from training.config import TrainConfig
from training.distribution import Processes
from training.learner import Learner
from training.randomness import random_state, restore_random_state

# Choices that an export may set: the last two, of flow-matching, are how images are sampled.
EXPORT_CHOICES = {"evaluate_every", "note", "solver_steps", "least_probability"}
# Choices that may change when a run is resumed or exported: paths, saving, monitoring, and how images are sampled.
MAY_CHANGE_ON_RESUME = EXPORT_CHOICES | {
    "device",
    "dataset",  # its digest is compared instead
    "data_dir",
    "runs_dir",
    "models_dir",
    "save_steps",
    "save_minutes",
    "tensorboard",
}
# Those that every state has; `cpu_s` came later.
KEYS = {"config", "dataset_digest", "learner", "history", "done", "best", "processes"}


class CannotResume(Exception):
    """There is no state to resume from, or it is damaged, or it belongs to another config."""


@dataclass(frozen=True)
class Best:
    """The networks of the epoch with the lowest Frechet distance so far."""

    epoch: int
    frechet_distance: float
    modules: dict[str, Tensor]


@dataclass
class Progress:
    """How far a run has come."""

    history: list[dict[str, float]] = field(default_factory=list)  # of each finished epoch
    done: int = 0  # steps of the current epoch
    totals: dict[str, Tensor] = field(default_factory=dict)  # sums of the losses of these steps in this process
    best: Best | None = None
    cpu_s: float | None = 0.0  # CPU time of the first process in seconds; None if an earlier part of it is unknown


def save_state(
    config: TrainConfig, learner: Learner, progress: Progress, dataset_digest: str, processes: Processes
) -> None:
    """Replace `state.pt` atomically; the first process writes it. Raises OSError on a full disk."""
    own = {"random": random_state(), "totals": {name: total.cpu() for name, total in progress.totals.items()}}
    every = processes.gather(own)
    if not processes.is_first:
        return
    state = {
        "config": config.model_dump(mode="json"),
        "dataset_digest": dataset_digest,
        "learner": learner.training_state(),
        "history": progress.history,
        "done": progress.done,
        "best": vars(progress.best) if progress.best else None,
        "processes": every,
        "cpu_s": progress.cpu_s,
    }
    write_atomically(config.run_dir / "state.pt", with_digest(state))


def with_digest(state: dict[str, Any]) -> bytes:
    """A serialised state, preceded by a line with its SHA-256."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def state_file(config: TrainConfig) -> Path:
    """The path of the saved state. Raises CannotResume when there is none."""
    path = config.run_dir / "state.pt"
    if not path.exists():
        raise CannotResume(f"{path} does not exist: nothing to resume")
    if not path.is_file():
        raise CannotResume(f"{path} is not a file")
    return path


def read_state(config: TrainConfig) -> dict[str, Any]:
    """The saved state. Its digest is verified first. Raises CannotResume when there is none or it cannot be read."""
    path = state_file(config)
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise CannotResume(f"{path} cannot be read: {error.strerror}") from error
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise CannotResume(
            f"{path} is damaged, or was made by a version without digests: --restart begins the run again"
        )
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise CannotResume(f"{path} is not a state that PyTorch {torch.__version__} can read") from error
    missing = KEYS - state.keys()
    if missing:
        raise CannotResume(f"{path} was made by another version: it lacks {', '.join(sorted(missing))}")
    return state


def check_same_run(config: TrainConfig, state: dict[str, Any], dataset_digest: str) -> None:
    """Raises CannotResume where the state belongs to a run of another config or of other data."""
    now, then = config.model_dump(mode="json", exclude=MAY_CHANGE_ON_RESUME), state["config"]
    changed = sorted(key for key, value in now.items() if then.get(key) != value)
    if changed:
        raise CannotResume(f"the state in {config.run_dir} was made with another {', '.join(changed)}")
    if state["dataset_digest"] != dataset_digest:
        raise CannotResume(f"the state in {config.run_dir} was made with other data than {config.dataset} holds")


def restore(config: TrainConfig, state: dict[str, Any], learner: Learner) -> Progress:
    """Restore the networks and their optimisers; returns the progress of the run. Raises CannotResume."""
    with _fitting(config):
        learner.load_training_state(state["learner"])
        best = Best(**state["best"]) if state["best"] else None
    return Progress(state["history"], state["done"], {}, best, state.get("cpu_s"))


def restore_own(config: TrainConfig, state: dict[str, Any], progress: Progress, processes: Processes) -> None:
    """Restore the random streams and sums of losses of this process.

    Raises CannotResume, also where the run had another number of processes.
    """
    if len(state["processes"]) != processes.count:
        raise CannotResume(f"the state was made by {len(state['processes'])} processes, not {processes.count}")
    own = state["processes"][processes.rank]
    with _fitting(config):
        progress.totals = {name: total.to(processes.device) for name, total in own["totals"].items()}
        restore_random_state(own["random"])


@contextmanager
def _fitting(config: TrainConfig) -> Iterator[None]:
    """Raises CannotResume where the parts of a state do not fit the networks or libraries of this version."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CannotResume(f"the state in {config.run_dir} cannot be restored: {error}") from error

"""One training run from config to exported checkpoint. Knows no family and no loss."""

import io
import logging
import pickle
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from training import report
from training.config import TrainConfig
from training.data import Dataset, TooFewImages, epoch_batches, load_mnist, to_unit_range
from training.device import choose_device, choose_precision
from training.evaluation.checkpoint import evaluate_checkpoint
from training.export import export
from training.families import build_learner
from training.families.family import Learner
from training.files import write_atomically

log = logging.getLogger(__name__)


class CannotResume(Exception):
    """There is no state to go on from, or it belongs to another config."""


def train(config: TrainConfig, *, resume: bool = False, dataset: Dataset | None = None) -> None:
    """Train, keep curves and samples under `config.run_dir`, export into `config.models_dir`.

    With `resume` the run goes on after its last finished epoch. `dataset` stands in for MNIST.
    Raises DataUnavailable, TooFewImages, CannotResume, and RuntimeError for an absent device.
    """
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    config = config.model_copy(update={"device": str(device), "precision": str(dtype).removeprefix("torch.")})
    if dataset is None:
        dataset = load_mnist(config.data_dir)
    images, labels = dataset.train_images[: config.train_images], dataset.train_labels[: config.train_images]

    steps = len(images) // config.batch_size
    if steps == 0:
        raise TooFewImages(f"{len(images)} images do not fill one batch of {config.batch_size}")

    torch.manual_seed(config.seed)
    learner = build_learner(config, config.epochs * steps, len(dataset.classes))
    learner.compute_dtype = dtype
    learner.to(device)
    history = load_state(config, learner) if resume else []
    write_atomically(config.run_dir / "config.json", config.model_dump_json(indent=2).encode())

    for epoch in range(len(history), config.epochs):
        history.append(_train_epoch(config, learner, images, labels, epoch))
        report.write_progress(config, history, learner, len(dataset.classes))
        # Last, since a run resumes after the epochs that its state knows.
        save_state(config, learner, history)
    checkpoint = export(config, learner, dataset, history)
    log.info("exported %s; measuring it", checkpoint)
    evaluate_checkpoint(checkpoint, dataset, config.runs_dir)


def export_run(config: TrainConfig, dataset: Dataset | None = None) -> None:
    """Export the last saved state of a run, finished or not. Raises CannotResume where there is none.

    What a run chose for itself, or may change as it goes on, is taken as it was trained.
    """
    trained = _read_state(config)["config"]
    config = config.model_copy(update={key: trained[key] for key in ("epochs", "device", "precision")})
    dataset = dataset or load_mnist(config.data_dir)
    learner = build_learner(config, config.epochs, len(dataset.classes))
    history = load_state(config, learner)
    checkpoint = export(config, learner, dataset, history)
    log.info("exported %s after %d epochs; measuring it", checkpoint, len(history))
    evaluate_checkpoint(checkpoint, dataset, config.runs_dir)


def save_state(config: TrainConfig, learner: Learner, history: list[dict[str, float]]) -> None:
    """Write everything a resumed run needs, in one atomic file. Raises OSError on a full disk."""
    state = {
        "config": config.model_dump(mode="json"),
        "learner": learner.training_state(),
        "history": history,
        "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(config.run_dir / "state.pt", buffer.getvalue())


def load_state(config: TrainConfig, learner: Learner) -> list[dict[str, float]]:
    """Restore what `save_state` wrote, and give the history of the epochs done.

    Raises CannotResume when there is no state, or none that can be read, or one of another config.
    Where a run writes and how long it goes on may change.
    """
    state = _read_state(config)
    free = {"epochs", "device", "data_dir", "runs_dir", "models_dir"}
    now, then = config.model_dump(mode="json", exclude=free), state["config"]
    changed = sorted(key for key, value in now.items() if then.get(key) != value)
    if changed:
        raise CannotResume(f"the state in {config.run_dir} was made with another {', '.join(changed)}")
    learner.load_training_state(state["learner"])
    torch.set_rng_state(state["random"]["cpu"])
    if state["random"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random"]["cuda"])
    history: list[dict[str, float]] = state["history"]
    return history


def _read_state(config: TrainConfig) -> dict[str, Any]:
    path = config.run_dir / "state.pt"
    if not path.is_file():
        raise CannotResume(f"{path} does not exist: nothing to resume")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise CannotResume(f"{path} is damaged") from error
    return state


def _train_epoch(config: TrainConfig, learner: Learner, images: Tensor, labels: Tensor, epoch: int) -> dict[str, float]:
    """One pass; the mean of each loss over its steps."""
    learner.train()
    device = next(learner.parameters()).device
    steps = len(images) // config.batch_size
    batches = epoch_batches(len(images), config.batch_size, learner.batches_per_step, config.seed, epoch)
    totals: dict[str, Tensor] = {}
    bar = tqdm(batches, total=steps, desc=f"epoch {epoch + 1}/{config.epochs}", mininterval=1.0)
    for done, rows in enumerate(bar, start=1):
        losses = learner.step(to_unit_range(images[rows].to(device)), labels[rows].to(device))
        totals = {name: totals.get(name, 0) + value for name, value in losses.items()}
        if done % 25 == 0 or done == steps:  # reading a loss waits for the device
            bar.set_postfix({name: f"{float(total) / done:.3f}" for name, total in totals.items()})
    return {"epoch": epoch + 1} | {name: float(total) / steps for name, total in totals.items()}

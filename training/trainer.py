"""One training run from config to exported checkpoint. Knows no family and no loss."""

import logging
from contextlib import ExitStack

from training.claim import check_replaceable, claimed, mark_exported
from training.config import TrainConfig
from training.data import Dataset
from training.datasets import load_dataset
from training.device import choose_device, choose_precision
from training.distribution import joined
from training.evaluation.checkpoint import evaluate_checkpoint
from training.events import Events
from training.export import Learned, export
from training.families import build_learner
from training.families.family import Learner
from training.run import Run, check_batch
from training.state import CannotResume, Progress, check_same_run, read_state, restore, state_file
from training.stopping import StopRequest

__all__ = ["CannotResume", "export_run", "train"]

log = logging.getLogger(__name__)


def train(config: TrainConfig, *, resume: bool = False, restart: bool = False, dataset: Dataset | None = None) -> None:
    """Train, keep curves and samples under `config.run_dir`, export into `config.models_dir`.

    With `resume` the run goes on from its last saved state, and is then the run that never stopped, to the bit where
    the device computes so. With `restart` a new run may replace a checkpoint of other data. `dataset` stands in for the
    one that the config names. Under torchrun all processes share the run: each takes its part of every batch, and the
    first one measures, shows, writes and exports.

    Raises Stopped after SIGINT or SIGTERM, when the state has been saved; Diverged where going on is of no use;
    DataUnavailable, TooFewImages, RunTaken, CannotResume, ClassifierDamaged, OSError, and RuntimeError for an absent
    device or a lost process.
    """
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    config = config.model_copy(update={"device": str(device), "precision": str(dtype).removeprefix("torch.")})
    with ExitStack() as held:
        with joined(device) as processes:
            dataset = processes.from_first(lambda: dataset or load_dataset(config.dataset, config.data_dir))
            check_batch(config, dataset, processes)
            if resume:
                processes.from_first(lambda: state_file(config))
            elif not restart:
                processes.from_first(lambda: check_replaceable(config, dataset))
            processes.from_first(lambda: held.enter_context(claimed(config.run_dir)))
            with StopRequest() as stop:
                run = Run(config, dataset, processes, stop, resume=resume)
                directory = config.run_dir / "tensorboard" if config.tensorboard and processes.is_first else None
                with Events(directory, run.steps_done) as events:
                    if run.progress.done == 0:
                        run.report(events)  # what a stop may have cut off
                    while not run.is_over:
                        run.train_epoch(events)
                        run.end_epoch(events)
        if processes.is_first:
            learned = ship(run.learner, run.progress, processes.count)
            checkpoint = export(config, run.learner, dataset, run.progress.history, learned)
            mark_exported(config)
            log.info("exported %s; measuring it", checkpoint)
            evaluate_checkpoint(checkpoint, dataset, config.runs_dir)


def export_run(config: TrainConfig, dataset: Dataset | None = None) -> None:
    """Export the last saved state of a run, finished or not, its best epoch if it has one.

    Without one, what was saved within an epoch has learned some steps more than its last whole epoch, as is recorded.
    What a run chose for itself, or may change as it goes on, is taken as it was trained. Raises CannotResume where
    there is no state, or none of a finished epoch.
    """
    state = read_state(config)
    config = config.model_copy(update={key: state["config"][key] for key in ("epochs", "device", "precision")})
    dataset = dataset or load_dataset(config.dataset, config.data_dir)
    check_same_run(config, state, dataset.digest)
    learner = build_learner(config, config.epochs, len(dataset.classes))
    progress = restore(state, learner)
    if not progress.history:
        raise CannotResume(f"the state in {config.run_dir} is of the first epoch: nothing to export yet")
    learned = ship(learner, progress, len(state["processes"]))
    checkpoint = export(config, learner, dataset, progress.history, learned)
    mark_exported(config)
    further = f" and {learned.steps} steps of the next" if learned.steps else ""
    log.info("exported %s, epoch %d of %d%s; measuring it", checkpoint, learned.epoch, config.epochs, further)
    evaluate_checkpoint(checkpoint, dataset, config.runs_dir)


def ship(learner: Learner, progress: Progress, processes: int) -> Learned:
    """Put the networks of the best epoch into the learner, if epochs were judged; how far it has now learned."""
    if progress.best is None:
        return Learned(len(progress.history), progress.done, processes)
    learner.load_state_dict(progress.best.modules)
    return Learned(progress.best.epoch, 0, processes)

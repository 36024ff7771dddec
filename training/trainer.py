"""One training run, from a config to an exported and measured checkpoint."""

import logging
from contextlib import ExitStack

from training.config import TrainConfig
from training.data import Dataset
from training.device import choose_device, choose_precision
from training.distribution import joined
from training.evaluation.evaluate import evaluate_checkpoint
from training.events import Events
from training.export import Trained, export
from training.families import build_learner
from training.learner import DataShape, Learner
from training.run import Run, check_batch
from training.run_lock import check_replaceable, mark_exported, run_lock
from training.sources import load_dataset
from training.state import EXPORT_CHOICES, CannotResume, Progress, check_same_run, read_state, restore, state_file
from training.stopping import StopRequest

log = logging.getLogger(__name__)


def train(config: TrainConfig, *, resume: bool = False, restart: bool = False, dataset: Dataset | None = None) -> None:
    """Train, keep curves and previews under `config.run_dir`, export to `config.models_dir` and measure the checkpoint.

    `resume` continues from the last saved state and gives the same run as one without a stop: to the bit where the
    device is deterministic. `restart` allows replacing a checkpoint of other data. `dataset` replaces the one that the
    config names. Under torchrun all processes share the run: each takes its part of every batch, and the first one
    measures, shows, writes and exports.

    Raises Stopped after SIGINT or SIGTERM, when the state has been saved; Diverged when continuing would be useless;
    DataUnavailable, TooFewImages, RunTaken, CannotResume, ClassifierDamaged, DeviceUnavailable, ProcessLost, OSError.
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
            processes.from_first(lambda: held.enter_context(run_lock(config.run_dir)))
            with StopRequest() as stop:
                run = Run(config, dataset, processes, stop, resume=resume)
                directory = config.run_dir / "tensorboard" if config.tensorboard and processes.is_first else None
                with Events(directory, run.steps_done) as events:
                    if run.progress.done == 0:
                        run.report(events)  # a stop may have interrupted it
                    while not run.is_over:
                        run.train_epoch(events)
                        run.end_epoch(events)
        if processes.is_first:
            export_progress(config, run.learner, dataset, run.progress, processes.count)


def export_run(config: TrainConfig, dataset: Dataset | None = None) -> None:
    """Export the best epoch of the last saved state of a run, finished or not, or the state itself if there is no best.

    Choices that a run resolved itself are taken from the state, and so are those of EXPORT_CHOICES that the config does
    not set. Raises CannotResume where there is no state, or none of a finished epoch.
    """
    state = read_state(config)
    kept = {"epochs", "device", "precision"} | (EXPORT_CHOICES & state["config"].keys() - config.model_fields_set)
    config = config.model_copy(update={key: state["config"][key] for key in kept})
    dataset = dataset or load_dataset(config.dataset, config.data_dir)
    check_same_run(config, state, dataset.digest)
    steps = config.epochs * config.epoch_steps(len(dataset.train_images))
    learner = build_learner(config, DataShape.of(dataset), steps)
    progress = restore(config, state, learner)
    if not progress.history:
        raise CannotResume(f"the state in {config.run_dir} is of the first epoch: there is nothing to export yet")
    export_progress(config, learner, dataset, progress, len(state["processes"]))


def export_progress(
    config: TrainConfig, learner: Learner, dataset: Dataset, progress: Progress, processes: int
) -> None:
    """Export the networks of the best epoch, or the learner's own where there is no best, and measure the checkpoint.

    The networks of the best epoch are loaded into the learner. `processes`: how many took part in the run.
    """
    trained = Trained(len(progress.history), progress.done, processes, progress.cpu_s)
    if progress.best is not None:
        learner.load_state_dict(progress.best.modules)
        trained = Trained(progress.best.epoch, 0, processes, progress.cpu_s)
    checkpoint = export(config, learner, dataset, progress.history, trained)
    mark_exported(config)
    further = f" and {trained.steps} steps of the next" if trained.steps else ""
    log.info("exported %s, epoch %d of %d%s; measuring it", checkpoint, trained.epoch, config.epochs, further)
    evaluate_checkpoint(checkpoint, dataset, config.runs_dir)

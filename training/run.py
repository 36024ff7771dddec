"""A run in progress: its steps, its epochs and its reports."""

import math
import time
from itertools import islice
from time import process_time

import torch
from torch import Tensor
from tqdm import tqdm

from app.checkpoints.files import remove_partial, write_atomically
from training.archive import EagerArchive
from training.config import TrainConfig
from training.curves import csv_bytes, curves_png
from training.data import Dataset, TooFewImages, epoch_batches, to_unit_range
from training.distribution import Processes
from training.divergence import check_collapse, check_losses, check_weights
from training.events import Events
from training.families import build_learner
from training.generation import Controls
from training.learner import DataShape
from training.monitoring import FITTED_IMAGES, SELECTION_FIGURE, SEPARATION, SPREAD, EpochMonitor, is_due, losses_of
from training.previews import preview
from training.randomness import preserved_random_state
from training.state import (
    Best,
    Progress,
    check_same_run,
    read_state,
    restore,
    restore_own,
    save_state,
)
from training.stopping import Stopped, StopRequest

# Steps between updates of the progress bar: reading a loss waits for the device.
SHOW_EVERY = 25


def check_batch(config: TrainConfig, dataset: Dataset, processes: Processes) -> None:
    """Raises TooFewImages where the images do not fill a batch or the processes cannot share one equally."""
    images = config.learned_images(len(dataset.train_images))
    if images < config.batch_size:
        raise TooFewImages(f"{images} images do not fill one batch of {config.batch_size}")
    if config.batch_size % processes.count:
        raise TooFewImages(f"a batch of {config.batch_size} cannot be shared equally by {processes.count} processes")


class Run:
    """The part of one process in a run: networks, data and progress."""

    def __init__(
        self, config: TrainConfig, dataset: Dataset, processes: Processes, stop: StopRequest, *, resume: bool
    ) -> None:
        """Build the networks or restore them from the last saved state, and write the config.

        The config has passed `check_batch`. Raises CannotResume, ClassifierDamaged, OSError.
        """
        self.config, self.dataset, self.processes, self.stop = config, dataset, processes, stop
        count = config.learned_images(len(dataset.train_images))
        self.images, self.labels = dataset.train_images[:count], dataset.train_labels[:count]
        self.steps = config.epoch_steps(len(dataset.train_images))
        torch.manual_seed(config.seed)
        self.learner = build_learner(config, DataShape.of(dataset), config.epochs * self.steps)
        self.learner.compute_dtype = getattr(torch, config.precision)
        self.learner.to(processes.device)
        self.progress = Progress()
        state = processes.from_first(lambda: read_state(config)) if resume else None
        if state is not None:
            check_same_run(config, state, dataset.digest)
            self.progress = restore(config, state, self.learner)
        processes.begin(self.learner, self.learner.optimizers)
        if state is not None:
            restore_own(config, state, self.progress, processes)
        elif not processes.is_first:  # each process draws other noise
            torch.manual_seed((config.seed * 1_000_003 + processes.rank) % 2**63)
        self.monitor: EpochMonitor | None = None
        self.measures_quality = processes.from_first(self._make_monitor)
        self._saved_at = time.monotonic()
        self._cpu_counted_s = process_time()
        self._shown: tuple[int, dict[str, float]] = (0, {})
        self._archived: tuple[int, EagerArchive] | None = None
        if processes.is_first:
            write_atomically(config.run_dir / "config.json", config.model_dump_json(indent=2).encode())
            remove_partial(config.run_dir)
            remove_partial(config.run_dir / "samples")

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done."""
        return len(self.progress.history) >= self.config.epochs

    @property
    def steps_done(self) -> int:
        """Steps since the start of the run."""
        return len(self.progress.history) * self.steps + self.progress.done

    def train_epoch(self, events: Events) -> None:
        """Do the remaining steps of the current epoch. Raises Diverged, and Stopped when the state has been saved."""
        config, progress, learner = self.config, self.progress, self.learner
        epoch = len(progress.history)
        learner.train()
        batches = epoch_batches(len(self.images), config.batch_size, learner.batches_per_step, config.seed, epoch)
        self._shown = (progress.done, self._totals())
        with tqdm(
            islice(batches, progress.done, None),
            total=self.steps,
            initial=progress.done,
            desc=f"epoch {epoch + 1}/{config.epochs}",
            mininterval=1.0,
            disable=not self.processes.is_first,
        ) as bar:
            for rows in bar:
                losses = self._step(self.processes.own_rows(rows))
                progress.done += 1
                progress.totals = {name: progress.totals.get(name, 0) + value for name, value in losses.items()}
                if progress.done % SHOW_EVERY == 0 or progress.done == self.steps:
                    self._show(bar, events)
                self._save_if_due()

    def end_epoch(self, events: Events) -> None:
        """Measure the epoch, keep its networks if they are the best, save and report. Raises Diverged and Stopped."""
        config, progress = self.config, self.progress
        epoch = len(progress.history) + 1
        losses = self.processes.mean({name: total / self.steps for name, total in self._totals().items()})
        quality = self.measures_quality and is_due(config, epoch)
        if quality:  # it takes a while
            self.save()
        check_losses(config, losses, epoch, progress.done)
        check_weights(config, self.learner)
        figures = self.processes.from_first(lambda: self._figures(quality=quality))
        if SPREAD in figures:
            check_collapse(config, figures[SPREAD], figures[SEPARATION], epoch * self.steps)
        progress.history.append({"epoch": epoch} | losses | figures)
        progress.done, progress.totals = 0, {}
        distance = figures.get(SELECTION_FIGURE, math.nan)
        if math.isfinite(distance) and (progress.best is None or distance < progress.best.frechet_distance):
            modules = {name: tensor.detach().cpu().clone() for name, tensor in self.learner.state_dict().items()}
            progress.best = Best(epoch, distance, modules)
        self.save()
        self.report(events)
        (stop_requested,) = self.processes.any_of(self.stop.signal_number is not None)
        if stop_requested:
            raise self._stopped()

    def save(self) -> None:
        """Save the state of all processes. Raises Diverged rather than save useless networks, and OSError."""
        check_losses(self.config, self._totals(), len(self.progress.history) + 1, self.progress.done)
        check_weights(self.config, self.learner)
        counted_s = process_time()
        if self.progress.cpu_s is not None:
            self.progress.cpu_s += counted_s - self._cpu_counted_s
        self._cpu_counted_s = counted_s
        save_state(self.config, self.learner, self.progress, self.dataset.digest, self.processes)
        self._saved_at = time.monotonic()

    def report(self, events: Events) -> None:
        """Write metrics, curves and a preview of the last finished epoch. Repeating it writes the same files."""
        if not self.processes.is_first or not self.progress.history:
            return
        config, history = self.config, self.progress.history
        write_atomically(config.run_dir / "metrics.csv", csv_bytes(history))
        write_atomically(config.run_dir / "curves.png", curves_png(history))
        row, step = history[-1], len(history) * self.steps
        losses = losses_of(row)
        events.scalars("epoch", losses, step)
        events.scalars("figures", {name: row[name] for name in row if name not in losses and name != "epoch"}, step)
        # The last prior is not fitted after training, so that only training changes the images.
        archive, controls = self._archive(), Controls(prior=self.learner.priors[-1])
        shown = preview(archive, archive.networks, self.learner, self.dataset, config.seed, controls)
        if shown:
            path = config.run_dir / "samples" / f"epoch-{len(history):04d}.png"
            write_atomically(path, shown[1])
            events.picture("samples", path, step)

    def _step(self, rows: Tensor) -> dict[str, Tensor]:
        device = self.processes.device
        images = to_unit_range(self.images[rows].to(device))
        losses = self.learner.step(images, self.labels[rows].to(device))
        self.processes.average_statistics(self.learner)
        return losses

    def _totals(self) -> dict[str, float]:
        return {name: float(total) for name, total in self.progress.totals.items()}

    def _show(self, bar: "tqdm[Tensor]", events: Events) -> None:
        done, totals = self.progress.done, self._totals()
        check_losses(self.config, totals, len(self.progress.history) + 1, done)
        bar.set_postfix({name: f"{total / done:.3f}" for name, total in totals.items()})
        shown, sums = self._shown
        recent = {name: (total - sums.get(name, 0)) / (done - shown) for name, total in totals.items()}
        events.scalars("step", recent, self.steps_done)
        self._shown = (done, totals)

    def _save_if_due(self) -> None:
        config = self.config
        due = config.save_steps is not None and self.steps_done % config.save_steps == 0
        if self.processes.is_first and config.save_minutes > 0:
            due = due or time.monotonic() - self._saved_at >= 60 * config.save_minutes
        due, stop_requested = self.processes.any_of(due, self.stop.signal_number is not None)
        if due or stop_requested:
            self.save()
        if stop_requested:
            raise self._stopped()

    def _stopped(self) -> Stopped:
        where = f"step {self.steps_done} of {self.config.epochs * self.steps}"
        return Stopped(f"stopped at {where}; the state is saved, --resume continues from it", self.stop.signal_number)

    def _make_monitor(self) -> bool:
        self.monitor = EpochMonitor(self.dataset, self.config.runs_dir)
        return self.monitor.measures_quality

    def _figures(self, *, quality: bool) -> dict[str, float]:
        assert self.monitor is not None, "only the first process has one"
        return self.monitor.figures(self._archive(), self.learner, quality=quality)

    def _archive(self) -> EagerArchive:
        # Built once per epoch: statistics of batch normalisation and mixtures of latents take seconds.
        if self._archived is None or self._archived[0] != self.steps_done:
            with preserved_random_state():
                fitted = self.images[:FITTED_IMAGES], self.labels[:FITTED_IMAGES]
                self._archived = (self.steps_done, self.learner.archive(fitted))
        return self._archived[1]

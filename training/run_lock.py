"""Protection of a run's files: a lock on its directory, and checks that no run or checkpoint is overwritten."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.checkpoints.files import write_atomically
from app.checkpoints.store import CheckpointError, read_manifest
from training.config import TrainConfig
from training.data import Dataset
from training.state import read_state

# A file in the directory of a run with the digest of the exported state.
EXPORTED = "exported"


class RunTaken(Exception):
    """Another process uses the directory, or an unfinished run or a checkpoint of other data would be overwritten."""


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory, which is created if needed. Raises RunTaken where another process holds it.

    The operating system releases it when the process ends, even after a crash.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunTaken(f"{directory} is in use by process {file.read().strip() or 'unknown'}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_finished(config: TrainConfig) -> None:
    """Raises RunTaken for a run that is unfinished or not exported, CannotResume for a state that cannot be read."""
    if not (config.run_dir / "state.pt").exists():
        return
    state = read_state(config)
    done, epochs = len(state["history"]), state["config"]["epochs"]
    exported = config.run_dir / EXPORTED
    if done == epochs and exported.is_file() and exported.read_bytes() == _digest(config):
        return
    left = f"was stopped in epoch {done + 1} of {epochs}" if done < epochs else "was trained and not exported"
    raise RunTaken(
        f"{config.run_dir} holds a run that {left}: "
        "--resume finishes it, --restart overwrites it, --name gives the new run its own directory"
    )


def mark_exported(config: TrainConfig) -> None:
    """Record that the current state of the run was exported. Raises OSError."""
    write_atomically(config.run_dir / EXPORTED, _digest(config))


def _digest(config: TrainConfig) -> bytes:
    with (config.run_dir / "state.pt").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def check_replaceable(config: TrainConfig, dataset: Dataset) -> None:
    """Raises RunTaken where the export would replace a checkpoint of other data.

    Folders with equal names give runs equal names, and a folder may have the name of a checkpoint.
    """
    directory = config.models_dir / config.name
    try:
        held = read_manifest(directory / "manifest.json").dataset
    except CheckpointError:  # there is nothing that could serve
        return
    if held.digest != dataset.digest:
        raise RunTaken(
            f"{directory} holds a checkpoint of other data, {held.name}: "
            "--name gives this run and its checkpoint their own directories, --restart replaces the checkpoint"
        )

"""A run's directory belongs to one training at a time, and to an unfinished run until somebody says otherwise.

So does a checkpoint's to the data that it was trained on. Knows no network.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from app.checkpoints.manifest import Manifest
from training.config import TrainConfig
from training.data import Dataset
from training.files import write_atomically
from training.state import read_state

# In the directory of a run: the digest of the state that became a checkpoint.
EXPORTED = "exported"


class RunTaken(Exception):
    """Another training uses the directory, or an unfinished run or a checkpoint of other data would be lost."""


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Hold the directory, which is made where it does not exist. Raises RunTaken where another process does.

    The system lets go of it when the process ends, however it ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as file:
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
    """Raises RunTaken where the directory holds a run without a checkpoint, CannotResume where nobody can tell."""
    if not (config.run_dir / "state.pt").is_file():
        return
    state = read_state(config)
    done, epochs = len(state["history"]), state["config"]["epochs"]
    if done < epochs:
        raise RunTaken(
            f"{config.run_dir} holds a run that was stopped in epoch {done + 1} of {epochs}: "
            "--resume goes on from there, --restart begins anew, --name gives a new run a place of its own"
        )
    if not is_exported(config):
        raise RunTaken(
            f"{config.run_dir} holds a run that was trained and not exported: "
            "--resume exports it, --restart begins anew, --name gives a new run a place of its own"
        )


def mark_exported(config: TrainConfig) -> None:
    """Keep that the state in the directory, this one and no later one, became a checkpoint. Raises OSError."""
    write_atomically(config.run_dir / EXPORTED, _digest(config))


def is_exported(config: TrainConfig) -> bool:
    """Whether the state in the directory became a checkpoint."""
    try:
        return (config.run_dir / EXPORTED).read_bytes() == _digest(config)
    except FileNotFoundError:
        return False


def _digest(config: TrainConfig) -> bytes:
    with (config.run_dir / "state.pt").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def check_replaceable(config: TrainConfig, dataset: Dataset) -> None:
    """Raises RunTaken where the run would replace a checkpoint of other data in the end.

    Folders of one name give their runs one name, and a folder may be called as a checkpoint is.
    """
    directory = config.models_dir / config.name
    try:
        held = Manifest.model_validate_json((directory / "manifest.json").read_bytes()).dataset
    except (FileNotFoundError, ValidationError):  # nothing that could serve
        return
    if held.digest != dataset.digest:
        raise RunTaken(
            f"{directory} holds a checkpoint of other data, {held.name}: "
            "--name gives this run and its checkpoint a place of their own, --restart replaces that one"
        )

"""A run's directory belongs to one training at a time, and to an unfinished run until somebody says otherwise.

Knows no network.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.config import TrainConfig
from training.state import read_state


class RunTaken(Exception):
    """Another training uses the directory, or an unfinished run would be lost."""


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
    """Raises RunTaken where the directory holds a run that was stopped, CannotResume where nobody can tell."""
    if not (config.run_dir / "state.pt").is_file():
        return
    state = read_state(config)
    done, epochs = len(state["history"]), state["config"]["epochs"]
    if done < epochs:
        raise RunTaken(
            f"{config.run_dir} holds a run that was stopped in epoch {done + 1} of {epochs}: "
            "--resume goes on from there, --restart begins anew, --name gives a new run a place of its own"
        )

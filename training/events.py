"""TensorBoard event files of a run.

They are written with TensorBoard's record writer in the caller's thread. `SummaryWriter` writes in a thread of its own:
on a full disk it prints a traceback, and its error names no file.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image


class Events:
    """Scalars and images by step, written to a directory, or discarded if it is None.

    A new run removes the events of an older one; a resumed run hides those after its last saved step.
    """

    def __init__(self, directory: Path | None, steps_done: int) -> None:
        """Raises OSError on a full disk."""
        self._directory = directory
        if directory is None:
            return
        # Imported late: it takes a second.
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]  # noqa: PLC0415

        directory.mkdir(parents=True, exist_ok=True)
        if steps_done == 0:
            for old in directory.glob("events.out.tfevents.*"):
                old.unlink()
        now = time.time_ns()  # files are read in the order of their names
        name = f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.{os.getpid()}"
        self._file = (directory / name).open("xb")
        self._write(0, file_version="brain.Event:2")
        if steps_done:
            self._write(steps_done + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._directory is not None:
            # Closing flushes again: after an error of a write, it would raise the same one.
            with suppress(OSError) if error else self._named():
                self._file.close()

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Add scalars by name to a group of charts. Raises OSError on a full disk."""
        if self._directory is not None:
            from torch.utils.tensorboard.summary import scalar  # noqa: PLC0415

            for name, value in values.items():
                self._write(step, summary=scalar(f"{group}/{name}", value))  # type: ignore[no-untyped-call]

    def picture(self, name: str, path: Path, step: int) -> None:
        """Add a grey image from a file. Raises OSError on a full disk."""
        if self._directory is not None:
            from torch.utils.tensorboard.summary import image  # noqa: PLC0415

            with Image.open(path) as opened:
                pixels = np.asarray(opened)
            self._write(step, summary=image(name, pixels, dataformats="HW"))  # type: ignore[no-untyped-call]

    def _write(self, step: int, **content: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]  # noqa: PLC0415

        with self._named():
            RecordWriter(self._file).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
            self._file.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self._directory)  # not set by a write to a full disk
            raise

"""A run as TensorBoard shows it. Knows nothing of how a family learns.

The files are written here, by TensorBoard's own parts and in the caller's thread: `SummaryWriter` writes in a thread
of its own, where a full disk is a traceback that names no file.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from PIL import Image


class Events:
    """Scalars and pictures by step, under a directory; nothing at all where there is no directory.

    A run that starts anew removes what an older one left; one that goes on hides what followed the steps it has.
    """

    def __init__(self, directory: Path | None, steps_done: int) -> None:
        """Raises OSError on a full disk."""
        self._directory = directory
        self._file: BinaryIO | None = None
        if directory is None:
            return
        # Here, since it takes a second to import.
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
        # What could not be written has been said, and closing tries it once more.
        with suppress(OSError) if error else self._named():
            if self._file is not None:
                self._file.close()

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Values by name, shown beside the others of their group. Raises OSError on a full disk."""
        if self._file is not None:
            from torch.utils.tensorboard.summary import scalar  # noqa: PLC0415

            for name, value in values.items():
                self._write(step, summary=scalar(f"{group}/{name}", value))  # type: ignore[no-untyped-call]

    def picture(self, name: str, path: Path, step: int) -> None:
        """A grey image file. Raises OSError on a full disk."""
        if self._file is not None:
            from torch.utils.tensorboard.summary import image  # noqa: PLC0415

            with Image.open(path) as opened:
                pixels = np.asarray(opened)[None]
            self._write(step, summary=image(name, pixels, dataformats="CHW"))  # type: ignore[no-untyped-call]

    def _write(self, step: int, **content: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]  # noqa: PLC0415

        assert self._file is not None, "asked of a run with a directory only"
        with self._named():
            RecordWriter(self._file).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
            self._file.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self._directory)  # a full disk does not say of what
            raise

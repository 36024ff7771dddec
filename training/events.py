"""A run as TensorBoard shows it. Knows nothing of how a family learns."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image


class Events:
    """Scalars and pictures by step, under a directory; nothing at all where there is no directory.

    A run that starts anew removes what an older one left; one that goes on hides what followed the steps it has.
    """

    def __init__(self, directory: Path | None, steps_done: int) -> None:
        self._writer = None
        if directory is None:
            return
        # Here, since it takes a second to import.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        if steps_done == 0:
            for old in directory.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = SummaryWriter(directory, purge_step=steps_done + 1 if steps_done else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Values by name, shown beside the others of their group. Raises OSError on a full disk."""
        for name, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """A grey image file. Raises OSError on a full disk."""
        if self._writer is not None:
            with Image.open(path) as image:
                self._writer.add_image(name, np.asarray(image)[None], step)
            self._writer.flush()

"""Uploaded files to the rows that a model takes, on threads of their own.

Uploads are bounded here in cost and in number, and in bytes by `Call.read_files`. `Settings` has the bounds.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import numpy as np

from app.checkpoints.manifest import ImageForm
from app.errors import DeadlineExceeded, InvalidImage, Overloaded
from app.images.decode import decode_image, estimate_cost
from app.images.encode import to_uint8
from app.images.normalize import fit, normalize
from app.inference.runtime import Rows
from app.scoreboard import Scoreboard
from app.settings import Settings

T = TypeVar("T")


class Decoders:
    """The threads that decode uploads, with a bounded queue."""

    def __init__(self, settings: Settings, scoreboard: Scoreboard) -> None:
        self._settings = settings
        self._uploads = scoreboard.counter("uploads")
        self._max_uploads = scoreboard.processes * settings.decode_workers + settings.max_waiting_uploads
        self._threads = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="decode")
        # Start all threads now: later there may be no memory for one.
        started = Barrier(settings.decode_workers + 1)
        for _ in range(settings.decode_workers):
            self._threads.submit(started.wait)
        started.wait()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of `function` on a decode thread. Raises its exception, and Overloaded."""
        if self._uploads.total >= self._max_uploads:
            raise Overloaded("too many uploads are waiting to be decoded; retry later")
        self._uploads.add(1)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self._uploads.add(-1)

    async def decode(self, contents: list[bytes], form: ImageForm, *, normalized: bool, deadline: float) -> Rows:
        """Files to rows `(n, 1, H, W)` in [0, 1], in order.

        Raises InvalidImage, Overloaded, and DeadlineExceeded at `deadline` on the monotonic clock.
        """
        try:
            async with asyncio.timeout_at(deadline):
                if len(contents) > 1:  # the settings keep one file below the limit
                    await self.run(_check_cost, contents, self._settings)
                # File by file, so that large uploads take turns.
                rows = [await self.run(_decode_file, content, form, self._settings, normalized) for content in contents]
        except TimeoutError:
            raise DeadlineExceeded("the upload was not decoded in time; retry later") from None
        return np.stack(rows)

    def close(self) -> None:
        """Let the threads end after their current task."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _check_cost(contents: list[bytes], settings: Settings) -> None:
    """Check the total before decoding: a megabyte can hold hundreds of large single-color images."""
    limits = {"max_side": settings.max_image_side, "max_cost_ms": settings.max_image_cost_ms}
    if sum(estimate_cost(content, **limits) for content in contents) > settings.max_upload_cost_ms:
        raise InvalidImage("The images of the request would take too long to decode; send fewer or smaller ones")


def _decode_file(content: bytes, form: ImageForm, settings: Settings, normalized: bool) -> Rows:
    """One file to `(1, H, W)` in [0, 1], rounded to 8 bits: the model sees what a PNG of the row shows."""
    picture = decode_image(content, max_side=settings.max_image_side, max_cost_ms=settings.max_image_cost_ms)
    size = form.shape[1]
    if normalized and form.normalization is not None:
        row = normalize(picture, size=size, box=form.normalization.box)
    else:
        row = fit(picture, size=size)
    return from_uint8(to_uint8(row))


def from_uint8(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Rows:
    """8-bit images of any shape to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)

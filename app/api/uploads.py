"""Uploaded files to the rows that a model takes, on threads of their own.

Uploads are bounded here in pixels and in number, and in bytes by `Call.read_images`. `Settings` has the bounds.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import Any, TypeVar

import numpy as np

from app.api.multipart import split_multipart
from app.checkpoints.manifest import ImageForm
from app.errors import InvalidImage, Overloaded
from app.images.decode import count_pixels, decode_image
from app.images.encode import to_uint8
from app.images.normalize import fit, normalize
from app.inference.runtime import Rows
from app.scoreboard import Scoreboard
from app.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upload:
    """The body of a request with images, and how they become rows.

    content_type: of a multipart body, which has up to `max_files` files in the form field `field`; None if the body is
    one file. File names and types that the caller states are ignored.
    """

    body: bytes
    content_type: str | None
    field: str
    max_files: int
    form: ImageForm
    normalized: bool


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

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """The result of `function` on a decode thread, or its exception. Raises Overloaded."""
        if self._uploads.total >= self._max_uploads:
            raise Overloaded("too many uploads are waiting to be decoded; retry later")
        self._uploads.add(1)
        future = asyncio.get_running_loop().run_in_executor(self._threads, function)
        future.add_done_callback(lambda _: self._uploads.add(-1))
        return future

    def first(self, upload: Upload) -> asyncio.Future[tuple[Rows, list[bytes]]]:
        """The row of the first file, `(1, H, W)` in [0, 1], and the other files.

        Fails with InvalidRequest, UnsupportedMediaType and InvalidImage. Raises Overloaded.
        """
        return self.run(partial(_read, upload, self._settings))

    def decode(self, upload: Upload, content: bytes) -> asyncio.Future[Rows]:
        """The row of one of the other files. Each waits for its turn among those of other requests.

        Fails with InvalidImage. Raises Overloaded.
        """
        return self.run(partial(_decode, upload, content, self._settings.max_image_side))

    def close(self) -> None:
        """Let the threads end after their current task."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _read(upload: Upload, settings: Settings) -> tuple[Rows, list[bytes]]:
    files = [upload.body]
    if upload.content_type is not None:
        files = split_multipart(upload.body, upload.content_type, upload.field, upload.max_files)
    if len(files) > 1:  # the settings keep one file below the limit
        _check_pixels(files, settings.max_image_side, settings.max_upload_pixels)
    return _decode(upload, files[0], settings.max_image_side), files[1:]


def _check_pixels(contents: list[bytes], max_side: int, max_pixels: int) -> None:
    """Check the total before decoding: a megabyte can hold hundreds of large single-color images."""
    if sum(count_pixels(content, max_side=max_side) for content in contents) > max_pixels:
        raise InvalidImage(f"The images of a request are limited to {max_pixels} pixels; send fewer or smaller ones")


def _decode(upload: Upload, content: bytes, max_side: int) -> Rows:
    """One file to `(1, H, W)` in [0, 1], rounded to 8 bits: the model sees what a PNG of the row shows."""
    picture = decode_image(content, max_side=max_side)
    form = upload.form
    size = form.shape[1]
    if upload.normalized and form.normalization is not None:
        row = normalize(picture, size=size, box=form.normalization.box)
    else:
        row = fit(picture, size=size)
    return from_uint8(to_uint8(row))


def from_uint8(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Rows:
    """8-bit images of any shape to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)

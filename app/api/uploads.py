"""Decoding of uploaded files to the rows that a model takes, on separate threads.

An upload is bounded in bytes (`Call.read_images`), in files (by each operation) and in the time that decoding may take
(`images.decode` estimates it, and checks the sides). `Settings` has most of the bounds.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import TypeVar

from app.api.multipart import split_multipart
from app.checkpoints.manifest import ImageForm
from app.errors import InvalidImage
from app.images.decode import decode_image, estimate_cost, is_grey_png
from app.images.encode import from_uint8, to_uint8
from app.images.normalization import fit, normalize
from app.images.resize import block_means
from app.images.shapes import WarningCode, find_warnings
from app.inference.limit import Limit
from app.inference.runtime import Rows
from app.scoreboard import Scoreboard
from app.settings import Settings

T = TypeVar("T")
# A row `(1, H, W)` in [0, 1], and the warnings about its file; none unless it was normalized.
Decoded = tuple[Rows, list[WarningCode]]


@dataclass(frozen=True, slots=True)
class Upload:
    """The body of a request with images, and how they are turned into rows.

    content_type: of a multipart body, which has up to `max_files` files in the form field `field`; None if the body is
    one file. File names and types that the caller states are ignored.
    reduction: the factor by which rows are smaller than the form. An image is brought to the form, then blocks of its
    pixels are averaged; a grey PNG that already has the size of the rows is taken as it is.
    """

    body: bytes
    content_type: str | None
    field: str
    max_files: int
    form: ImageForm
    normalized: bool
    reduction: int


class Decoders:
    """The threads that decode uploads, and the bound on the files that wait for them."""

    def __init__(self, settings: Settings, scoreboard: Scoreboard) -> None:
        self._settings = settings
        self._limit = Limit(settings.max_queued_files, scoreboard.counter("files"), small=1, what="uploaded files")
        self._threads = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="decode")
        # Start all threads now, because later there may be too little memory for one.
        started = Barrier(settings.decode_workers + 1)
        for _ in range(settings.decode_workers):
            self._threads.submit(started.wait)
        started.wait()

    def admit(self, files: int) -> AbstractContextManager[None]:
        """Count files as in flight. Raises Overloaded at once if there are too many."""
        return self._limit.admit(files)

    def first(self, upload: Upload) -> asyncio.Future[tuple[Decoded, list[bytes]]]:
        """The row of the first file, and the other files.

        Fails with InvalidRequest, UnsupportedMediaType and InvalidImage.
        """
        return self._run(partial(_read, upload, self._settings))

    def decode(self, upload: Upload, content: bytes) -> asyncio.Future[Decoded]:
        """The row of one of the other files. Fails with InvalidImage."""
        return self._run(partial(_decode, upload, content, self._settings))

    def _run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """End the threads after their current task."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _read(upload: Upload, settings: Settings) -> tuple[Decoded, list[bytes]]:
    files = [upload.body]
    if upload.content_type is not None:
        files = split_multipart(upload.body, upload.content_type, upload.field, upload.max_files)
    if len(files) > 1:  # the settings keep one file below the limit
        _check_cost(files, settings)
    return _decode(upload, files[0], settings), files[1:]


def _check_cost(contents: list[bytes], settings: Settings) -> None:
    """Check the total cost before decoding: a megabyte can hold hundreds of large single-color images."""
    limits = {"max_side": settings.max_image_side, "max_cost_ms": settings.max_image_cost_ms}
    if sum(estimate_cost(content, **limits) for content in contents) > settings.max_upload_cost_ms:
        raise InvalidImage("The images of the request would take too long to decode; send fewer or smaller ones")


def _decode(upload: Upload, content: bytes, settings: Settings) -> Decoded:
    """Decode a file to a row, rounded to 8 bits, so that the model sees what a PNG of the row shows."""
    picture = decode_image(content, max_side=settings.max_image_side, max_cost_ms=settings.max_image_cost_ms)
    form, reduction = upload.form, upload.reduction
    size = form.shape[1]
    if reduction > 1 and is_grey_png(content) and picture.is_opaque_square(size // reduction):
        return from_uint8(to_uint8(picture.luminance[None])), []
    if upload.normalized and form.normalization is not None:
        row = to_uint8(normalize(picture, size=size, box=form.normalization.box))
        warnings = find_warnings(from_uint8(row)[0])
    else:
        row, warnings = to_uint8(fit(picture, size=size)), []
    return from_uint8(block_means(row, reduction)), warnings

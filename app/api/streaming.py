"""Responses that are computed while they are read: NDJSON, server-sent events, ZIP and IDX.

A stream is a sequence of jobs. Each is computed while the result of the previous one is read, so that memory does not
grow with the number of images, and computation stops when the reader is slow or has disconnected.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.call import Call, name_origin
from app.api.negotiation import EVENT_STREAM, IDX, NDJSON, ZIP
from app.api.rendering import json_items
from app.errors import CallerGone, Draining, ServiceError, internal_error, problem_of
from app.images import encode
from app.images.encode import Pixels
from app.images.stream_archive import ZipDirectory, folder_name, idx_header, zip_entry
from app.inference.batching import Job
from app.inference.model import Model
from app.inference.runtime import Labels
from app.inference.sampling import Source

log = logging.getLogger(__name__)

STREAMED = (NDJSON, EVENT_STREAM, ZIP, IDX)
PIECE_IMAGES, PIECE_LABELS = 64, 2**16
# Seconds for sending the error at the end of a stream that a shutdown interrupts.
SEND_ERROR_S = 1.0


@dataclass(frozen=True, slots=True)
class PieceRenderer:
    """Renders the pieces of a stream, on workers, like `ImageRenderer`. Its parts are bytes."""

    media_type: str
    classes: tuple[str, ...]
    scale: int

    def part(self, pixels: Pixels, labels: Labels | None, first: int, **_: object) -> bytes:
        """The part with images `(n, H, W)`, whose first one has the index `first`. labels: as in `ImageRenderer`."""
        if self.media_type == IDX:
            return pixels.tobytes()
        if self.media_type == ZIP:
            folders = [""] * len(pixels)
            if labels is not None:
                folders = [f"{folder_name(self.classes[label])}/" for label in labels.tolist()]
            return b"".join(
                zip_entry(f"{folder}{first + i:06}.png", encode.png(image, scale=self.scale))
                for i, (folder, image) in enumerate(zip(folders, pixels, strict=True))
            )
        items = json_items(pixels, labels, first, self.classes, self.scale)
        if self.media_type == NDJSON:
            return b"".join(b"%b\n" % item for item in items)
        return b"".join(b"event: image\nid: %d\ndata: %b\n\n" % (first + i, item) for i, item in enumerate(items))

    def content(self, parts: Sequence[bytes], _: dict[str, Any]) -> bytes:
        """The piece."""
        return b"".join(parts)


class Framing:
    """The bytes of a stream before and after its pieces."""

    def __init__(self, media_type: str, count: int, shape: tuple[int, ...]) -> None:
        """count: of the images or labels. shape: `(H, W)` of the images, `()` of labels."""
        self._media_type = media_type
        self._count = count
        self._shape = shape
        self._directory = ZipDirectory()

    def begin(self) -> bytes:
        """The bytes before the pieces."""
        return idx_header(self._count, *self._shape) if self._media_type == IDX else b""

    def add(self, piece: bytes) -> None:
        """Record a piece for the directory of a ZIP."""
        if self._media_type == ZIP:
            self._directory.add(piece)

    def end(self) -> bytes:
        """The bytes after the pieces."""
        if self._media_type == ZIP:
            return self._directory.end()
        return b'event: end\ndata: {"n":%d}\n\n' % self._count if self._media_type == EVENT_STREAM else b""

    def broken(self, problem: bytes) -> bytes:
        """The error of a stream that ends early, in a format that has a place for it."""
        if self._media_type == EVENT_STREAM:
            return b"event: problem\ndata: %b\n\n" % problem
        return problem + b"\n" if self._media_type == NDJSON else b""


async def answer_stream(
    call: Call,
    model: Model,
    piece: Callable[[int, int], Job[Any]],
    count: int,
    media_type: str,
    seed: int | None,
) -> Response:
    """The response that streams `count` images. It begins once the first piece is computed, whose errors are ordinary.

    piece: the job of the images `first` to `first + n - 1` of the stream, from `first` and `n`.
    Raises Overloaded, CallerGone, and as `Engine.run`.
    """
    framing = Framing(media_type, count, model.manifest.image.shape[1:])
    pieces = compute(call, model, piece, count)
    first = asyncio.ensure_future(anext(pieces))
    try:
        started = await call.while_connected(first)
    except BaseException:
        await asyncio.gather(first, return_exceptions=True)  # a generator that runs cannot be closed
        await pieces.aclose()
        raise
    response = ImageStream(started, pieces, framing, media_type)
    return name_origin(response, model.provenance, seed)


async def answer_labels(call: Call, model: Model, source: Source, first: int, count: int, seed: int | None) -> Response:
    """The response that streams the labels of images, all of which have one, as an IDX file. Raises Overloaded."""
    pieces = draw_labels(call, source, first, count)
    response = ImageStream(await anext(pieces), pieces, Framing(IDX, count, ()), IDX)
    return name_origin(response, model.provenance, seed)


async def draw_labels(call: Call, source: Source, first: int, count: int) -> AsyncGenerator[bytes, None]:
    """The bytes of the labels in pieces. They need no model, and hence no queue."""
    with call.streams.admit(1):
        for start in range(first, first + count, PIECE_LABELS):
            labels = await asyncio.to_thread(source.labels, start, min(PIECE_LABELS, first + count - start))
            assert labels is not None, "checked when the model was selected"
            yield labels.astype(np.uint8).tobytes()


async def compute(
    call: Call, model: Model, piece: Callable[[int, int], Job[Any]], count: int
) -> AsyncGenerator[bytes, None]:
    """The pieces in order.

    A stream is refused at its start or not at all. Each piece has the time limit of a request, the first one that of
    the caller.
    """
    jobs = (piece(first, min(PIECE_IMAGES, count - first)) for first in range(0, count, PIECE_IMAGES))
    with call.streams.admit(1):
        computed = call.engine.run_piece(model, next(jobs), call.deadline)
        try:
            for job in jobs:
                finished = await computed
                computed = call.engine.run_piece(model, job, monotonic() + call.settings.request_timeout_s)
                yield finished
            yield await computed
        finally:
            computed.cancel()


class ImageStream(StreamingResponse):
    """A streamed response. If a piece fails, the connection is closed before the end of the body."""

    def __init__(self, started: bytes, pieces: AsyncGenerator[bytes, None], framing: Framing, media_type: str) -> None:
        """started: the first piece. pieces: the others."""
        # Otherwise nginx would buffer the stream as fast as it is computed, even for a slow reader.
        super().__init__(pieces, headers={"X-Accel-Buffering": "no"}, media_type=media_type)
        self._started = started
        self._pieces = pieces
        self._framing = framing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. The computation ends with it, also when the reader disconnects."""
        # Recorded in the metrics unless the stream completes or fails for another reason.
        scope["problem_code"] = CallerGone.code
        self._scope = scope
        async with aclosing(self._pieces):
            try:
                await super().__call__(scope, receive, send)
            except asyncio.CancelledError:  # by the server, which then closes the connection
                with suppress(TimeoutError):
                    async with asyncio.timeout(SEND_ERROR_S):
                        await self._break_off(Draining(), send)

    async def stream_response(self, send: Send) -> None:
        """Send all pieces."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._scope["first_piece_at"] = monotonic()
        self._framing.add(self._started)
        await write(send, self._framing.begin() + self._started)
        try:
            async for piece in self._pieces:
                self._framing.add(piece)
                await write(send, piece)
        except ServiceError as error:
            await self._break_off(error, send)
        except Exception as error:
            log.error("a stream failed", exc_info=error)
            await self._break_off(internal_error(), send)
        else:
            await write(send, self._framing.end(), more=False)
            del self._scope["problem_code"]

    async def _break_off(self, error: ServiceError, send: Send) -> None:
        """Send the error, but no final message, so that the server closes the connection."""
        log.warning("a stream ended early: %s", error.detail)
        await write(send, self._framing.broken(bytes(problem_of(Request(self._scope), error).body)))


async def write(send: Send, content: bytes, *, more: bool = True) -> None:
    """Send a part of the body. more: whether other parts follow."""
    await send({"type": "http.response.body", "body": content, "more_body": more})

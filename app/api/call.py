"""A request as operations read it, and the route class that hands it to them."""

import asyncio
import json
import re
from collections.abc import Collection
from functools import lru_cache
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.fields import MAX_FILES
from app.api.negotiation import JSON, negotiate
from app.api.service_state import state_of
from app.api.uploads import Upload
from app.checkpoints.manifest import ImageForm
from app.errors import BodyTooLarge, CallerGone, DeadlineExceeded, InvalidRequest, UnsupportedMediaType
from app.images.shapes import WarningCode
from app.inference.batching import Job
from app.inference.engine import Engine
from app.inference.model import Model, Provenance
from app.inference.runtime import Rows
from app.trace import TRACE

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

MULTIPART = "multipart/form-data"
# A body that is one image file. Its first bytes tell the format.
IMAGE_TYPES = ("image/png", "image/jpeg", "application/octet-stream")

MAX_PARAMETERS = 64  # of a query
CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
# A quoted value, possessive and optionally unterminated, so that matching is linear.
QUOTED = re.compile(r"=\s*\"(?:[^\"\\]|\\.)*+\"?")
TIMEOUT_SECONDS = re.compile(r"[0-9]{1,99}(\.[0-9]{1,99})?")


def name_origin(response: Response, provenance: Provenance, seed: int | None) -> Response:
    """Add the provenance headers of a response."""
    response.raw_headers += _origin_headers(provenance)
    if seed is not None:
        response.raw_headers.append((b"x-seed", b"%d" % seed))
    return response


@lru_cache(maxsize=256)  # loaded archives, also those before a reload
def _origin_headers(provenance: Provenance) -> list[tuple[bytes, bytes]]:
    headers = {
        "x-model": provenance.model,
        "x-model-digest": provenance.digest,
        "x-precision": provenance.precision,
        "x-runtime": provenance.runtime,
        "vary": "Accept",
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class Call(Request):
    """A request for an operation. Raises NotReady, Draining or WorkerLost if the service cannot serve it.

    Every method that reads the request raises InvalidRequest or RequestValidationError for a request that does not have
    the documented form.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        # By name, in one pass: Starlette's Headers search and decode the list for each name.
        self._header_values: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._header_values.setdefault(name, []).append(value)
        state = state_of(self)
        self.settings = state["settings"]
        self.decoders = state["decoders"]
        self.streams = state["streams"]
        self.engine: Engine = state["readiness"].engine()

    def negotiate(self, *media_types: str) -> str:
        """The media type of the response that the caller prefers. Raises NotAcceptable."""
        return negotiate(",".join(self.header_values(b"accept")), media_types)

    def negotiate_get(self, *media_types: str) -> str:
        """`negotiate` for a path without query parameters. Raises NotAcceptable, and InvalidRequest for a query."""
        media_type = self.negotiate(*media_types)
        self.refuse_query()
        return media_type

    def refuse_query(self) -> None:
        """Raises InvalidRequest if there is a query string."""
        if self.scope["query_string"]:
            raise InvalidRequest("this path has no query parameters")

    def header_values(self, name: bytes) -> list[str]:
        """The values of a header, whose name is in lower case."""
        return [value.decode("latin-1") for value in self._header_values.get(name, ())]

    @property
    def deadline(self) -> float:
        """The time on the monotonic clock by which the response must be computed.

        `X-Request-Timeout` shortens the limit of the service. Raises InvalidRequest if it is not a positive number.
        """
        timeout = self.settings.request_timeout_s
        values = self.header_values(b"x-request-timeout")
        if values:
            if len(values) > 1 or not TIMEOUT_SECONDS.fullmatch(values[0]) or float(values[0]) <= 0:
                raise InvalidRequest("X-Request-Timeout is one positive number of seconds")
            timeout = min(float(values[0]), timeout)
        arrived_at: float = self.scope["arrived_at"]
        return arrived_at + timeout

    def media_type(self, *accepted: str) -> str:
        """The media type of the body.

        Raises UnsupportedMediaType unless it is one of `accepted`, uncompressed, has each parameter once, and is UTF-8
        if it is JSON: parsers differ in which of two boundaries or charsets they use (RFC 6838, section 4.3).
        """
        self.refuse_compression()
        return media_type_of(tuple(self.header_values(b"content-type")), accepted)

    def refuse_compression(self) -> None:
        """Raises UnsupportedMediaType for a compressed body."""
        if any(coding.strip().lower() != "identity" for coding in self.header_values(b"content-encoding")):
            raise UnsupportedMediaType("compressed bodies are not supported")

    def read_query(self, model: type[M]) -> M:
        """The query string as `model`. A parameter given twice is refused."""
        if self.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
            raise InvalidRequest(f"the query is limited to {MAX_PARAMETERS} parameters")
        if len(self.query_params.multi_items()) != len(self.query_params):
            raise InvalidRequest("the query has a parameter twice")
        try:
            return model.model_validate(dict(self.query_params))
        except ValidationError as error:
            raise _validation_error(error, "query", model) from None

    async def read_json(self, model: type[M], beside: Collection[str] = ()) -> M:
        """The JSON body as `model`: UTF-8, no name twice in an object. Raises BodyTooLarge.

        beside: query parameters that may stand beside the body.
        """
        if self.scope["query_string"] and not (beside and self.query_params.keys() <= set(beside)):
            raise InvalidRequest("with a JSON body, put all options in the body, not in the query")
        content = await self.read_body(self.settings.max_json_bytes)
        try:
            parsed = model.model_validate_json(content)
        except ValidationError as error:
            raise _validation_error(error, "body", model) from None
        # Each name needs a colon, so only a body with more colons than fields can have a name twice.
        if content.count(b":") > len(parsed.model_fields_set):
            json.loads(content, object_pairs_hook=unique_fields)
        return parsed

    async def read_files(
        self, media_type: str, form: ImageForm, *, normalized: bool, reduction: int = 1
    ) -> tuple[Rows, list[list[WarningCode]]]:
        """As `read_images`, for up to `MAX_FILES` parts `files`, or the body itself."""
        max_files = min(MAX_FILES, self.settings.max_images)
        return await self.read_images(media_type, "files", max_files, form, normalized=normalized, reduction=reduction)

    async def read_images(
        self, media_type: str, field: str, max_files: int, form: ImageForm, *, normalized: bool, reduction: int = 1
    ) -> tuple[Rows, list[list[WarningCode]]]:
        """The uploaded images in this form as rows `(n, 1, H, W)` in [0, 1], in order, and the warnings of each.

        The images are the parts `field` of a multipart body, or the body itself. reduction: as in `Upload`. The
        warnings are those of `find_warnings`, none for an image that is not normalized.

        Raises BodyTooLarge, UnsupportedMediaType, InvalidImage, Overloaded, DeadlineExceeded and CallerGone.
        """
        content_type = self.header_values(b"content-type")[0] if media_type == MULTIPART else None
        body = await self.read_body(self.settings.max_upload_bytes, "; resize photos, 2048 pixels a side are enough")
        upload = Upload(body, content_type, field, max_files, form, normalized, reduction)
        decoders, decoded = self.decoders, []
        started = monotonic()
        try:
            async with asyncio.timeout_at(self.deadline):
                with decoders.admit(1):
                    first, others = await self.while_connected(decoders.first(upload))
                decoded.append(first)
                with decoders.admit(len(others)):
                    # Each file waits for its turn among those of other requests.
                    decoded += [await self.while_connected(decoders.decode(upload, content)) for content in others]
        except TimeoutError:
            raise DeadlineExceeded("the upload was not decoded in time; retry later") from None
        if (trace := TRACE.get()) is not None:
            trace.step("decode", started, monotonic(), files=len(decoded))
        rows, warnings = zip(*decoded, strict=True)
        return np.stack(rows), [*warnings]

    async def read_body(self, limit: int, advice: str = "") -> bytes:
        """The whole body. Raises BodyTooLarge, with advice, over `limit` bytes, CallerGone if the caller leaves."""
        length = "".join(self.header_values(b"content-length"))
        if length.isdecimal() and (len(length) > 15 or int(length) > limit):
            raise BodyTooLarge(f"the body has more than {limit} bytes{advice}")
        pieces, size, more = [], 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise CallerGone("the caller disconnected before the body was complete")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes{advice}")
            more = message.get("more_body", False)
        return b"".join(pieces)

    def check_count(self, model: Model, count: int, scale: int = 1, *, paged: bool = False, pictures: int = 1) -> None:
        """Raises InvalidRequest for more images, or more pixels after scaling, than a response may have.

        paged: whether `first` can request the others. pictures: number of pictures of each image in the response.
        """
        if count > self.settings.max_images:
            advice = "; page with `first`" if paged else ""
            raise InvalidRequest(f"a request is limited to {self.settings.max_images} images{advice}")
        self.check_pixels(model, count * pictures, scale)

    def check_pixels(self, model: Model, pictures: int, scale: int) -> None:
        """Raises InvalidRequest for more pixels after scaling than a response may have."""
        if pictures * model.manifest.image.pixels * scale**2 > self.settings.max_answer_pixels:
            limit = self.settings.max_answer_pixels
            raise InvalidRequest(f"a response is limited to {limit} pixels; request fewer images or a smaller scale")

    async def answer(
        self, model: Model, job: Job[Any], media_type: str, seed: int | None, headers: dict[str, str] | None = None
    ) -> Response:
        """The response to a job, with its provenance. Raises Overloaded, CallerGone, and as `Engine.run`."""
        with self.engine.admit(model, job):
            content = await self.while_connected(self.engine.run(model, job, self.deadline))
        return name_origin(Response(content, media_type=media_type, headers=headers), model.provenance, seed)

    async def while_connected(self, work: asyncio.Future[T]) -> T:
        """The result of `work`. When the caller disconnects, cancels `work` and raises CallerGone.

        The body must have been read, because this reads the messages of the connection.

        The task of the request waits for messages, and the completion of the work cancels that wait: a second task
        would take a tenth of the time that the event loop spends on a request.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        waiting, interrupted = True, False

        def interrupt(_: object) -> None:
            nonlocal interrupted
            if waiting:
                interrupted = True
                task.cancel()

        work.add_done_callback(interrupt)
        try:
            while not work.done() and (await self.receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            # Swallow only our own cancellation, not one from outside.
            if not interrupted or task.uncancel() > cancelled_before:
                raise
        finally:
            waiting = False
            cancelled = work.cancel()
        if cancelled:
            raise CallerGone("the caller disconnected before the answer")
        return work.result()


class OperationRoute(APIRoute):
    """Calls `operation(call: Call, **path_parameters) -> Response` directly.

    FastAPI documents and matches the route, but solves no dependencies: for a one-image request that takes longer than
    everything else on the event loop. Operations read the request through `Call`.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that matches the path. Exceptions pass to the handlers of the app."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # 405
            return
        response = await self.endpoint(Call(scope, receive), **scope["path_params"])
        await response(scope, receive, send)


# There are few client programs, and each always sends the same header.
@lru_cache(maxsize=64)
def media_type_of(values: tuple[str, ...], accepted: tuple[str, ...]) -> str:
    """The media type of a body with these Content-Type headers. Raises as `Call.media_type`."""
    media_type = values[0].split(";")[0].strip().lower() if len(values) == 1 else ""
    if media_type not in accepted:
        raise UnsupportedMediaType(f"Content-Type must be {' or '.join(accepted)}")
    parameters = QUOTED.sub("=", values[0]).split(";")[1:]
    names = [re.split(r"[=*]", parameter)[0].strip().lower() for parameter in parameters if parameter.strip()]
    if len(names) != len(set(names)):
        raise UnsupportedMediaType("Content-Type has a parameter twice")
    charset = CHARSET.search(values[0])
    if media_type == JSON and charset is not None and charset[1].lower() not in {"utf-8", "us-ascii"}:
        raise UnsupportedMediaType("the charset of JSON must be UTF-8")
    return media_type


def _validation_error(error: ValidationError, location: str, model: type[BaseModel]) -> RequestValidationError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    context = {"known": list(model.model_fields)}
    return RequestValidationError([{**item, "loc": (location, *item["loc"]), "ctx": context} for item in found])


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its names and values. Raises InvalidRequest if a name is repeated."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequest("the body has a name twice in one object")
    return fields

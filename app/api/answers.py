"""Images and provenance to responses, and how responses are documented. Knows no operation."""

from binascii import b2a_base64
from collections.abc import Callable, Sequence
from json import JSONEncoder
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from app.api.dependencies import ImageWorkers
from app.api.negotiation import APNG, JSON
from app.api.schemas import Problem
from app.errors import PROBLEM_JSON, InvalidRequest
from app.images import encode
from app.inference.engine import Provenance
from app.settings import Settings

Pixels = NDArray[np.uint8]
T = TypeVar("T")

# What encoding takes, measured in nanoseconds: so many a pixel of an image, and one a pixel it is enlarged to.
NS_A_PIXEL = 35
# And to deflate a byte of noise, as latents are.
NS_A_BYTE = 30
# What takes longer than a millisecond leaves the event loop; changing threads costs about a tenth of that.
NS_ON_THE_LOOP = 1_000_000

# The one way to write JSON here: compact, and never a NaN.
to_json = JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def respond(
    content: bytes, form: str, provenance: Provenance, seed: int | None, headers: dict[str, str] | None = None
) -> Response:
    """An answer that names its origin in headers, whatever its form."""
    return Response(content, media_type=form, headers=origin_headers(provenance, seed) | (headers or {}))


def origin_headers(provenance: Provenance, seed: int | None) -> dict[str, str]:
    """The headers that say where an answer comes from."""
    named = {
        "X-Model": provenance.model,
        "X-Model-Digest": provenance.digest,
        "X-Precision": provenance.precision,
        "X-Runtime": provenance.runtime,
        "Vary": "Accept",
    }
    if seed is not None:
        named["X-Seed"] = str(seed)
    return named


def json_answer(provenance: Provenance, fields: dict[str, Any], images: bytes | None = None) -> bytes:
    """The JSON of an answer: its origin, `fields`, then `images`, which are JSON already.

    Not by way of the declared model: making, checking and writing one an image takes longer than its PNG.
    A test reads every answer by its model.
    """
    head = to_json(vars(provenance) | fields).encode()
    return head if images is None else b"".join((head[:-1], b',"images":', images, b"}"))


async def images_json(
    images: Pixels, labels: Sequence[str | None] | None, first: int, scale: int, workers: ImageWorkers
) -> bytes:
    """Images `(n, height, width)`, the classes of which are `labels`, as a JSON array of numbered PNGs."""

    def encode_all() -> bytes:
        named = [b"null"] * len(images) if labels is None else [to_json(label).encode() for label in labels]
        items = [
            b'{"index":%d,"label":%b,"png":"%b"}' % (first + i, name, base64_png(image, scale))
            for i, (name, image) in enumerate(zip(named, images, strict=True))
        ]
        return b"[%b]" % b",".join(items)

    return await off_loop(encode_all, encoding_ns(images, scale), workers)


def base64_png(image: Pixels, scale: int) -> bytes:
    """An image `(height, width)` as a PNG in base64."""
    return b2a_base64(encode.png(image, scale=scale), newline=False)


async def picture(images: Pixels, form: str, scale: int, workers: ImageWorkers, *, columns: int | None = None) -> bytes:
    """Images `(n, height, width)` as one PNG grid, or as an APNG of n frames."""

    def encode_one() -> bytes:
        if form == APNG:
            return encode.apng(images, scale=scale)
        return encode.png(encode.grid(images, columns), scale=scale)

    return await off_loop(encode_one, encoding_ns(images, scale), workers)


def encoding_ns(images: Pixels, scale: int) -> int:
    """About how many nanoseconds it takes to make PNGs of images."""
    return images.size * (NS_A_PIXEL + scale**2)


async def archive(workers: ImageWorkers, **arrays: NDArray[Any]) -> bytes:
    """Arrays by name as an `.npz`."""
    takes_ns = NS_A_BYTE * sum(array.nbytes for array in arrays.values())
    return await off_loop(lambda: encode.npz(**arrays), takes_ns, workers)


async def off_loop(function: Callable[[], T], takes_ns: int, workers: ImageWorkers) -> T:
    """Call `function` here when it is short, on a worker when it is long."""
    return function() if takes_ns <= NS_ON_THE_LOOP else await workers.run(function)


def check_count(count: int, scale: int, pixels: int, settings: Settings) -> None:
    """Raises InvalidRequest for more images, or more pixels after scaling, than one answer may have."""
    if count > settings.max_images:
        raise InvalidRequest(f"at most {settings.max_images} images are made for one request")
    if count * pixels * scale**2 > settings.max_answer_pixels:
        raise InvalidRequest(
            f"an answer has at most {settings.max_answer_pixels} pixels; ask for fewer images or a smaller scale"
        )


def documented(
    *forms: str, errors: tuple[int, ...] = (), headers: tuple[str, ...] = ()
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of an operation: the forms of its answer beside JSON, its headers, its errors.

    An answer with images has the headers that name its origin. headers: those that only some operations have.
    """
    content: dict[str, Any] = {
        form: {"schema": {"type": "string", "format": "binary"}} for form in forms if form != JSON
    }
    names = ["X-Request-Id"]
    if forms:
        names += ["X-Model", "X-Model-Digest", "X-Precision", "X-Runtime", "X-Seed"]
    schemas = {name: {"schema": {"type": "string"}} for name in (*names, *headers)}
    responses: dict[int | str, dict[str, Any]] = {200: {"content": content, "headers": schemas}}
    for status in sorted({*ALWAYS, *errors}):
        problem_content = {PROBLEM_JSON: {"schema": Problem.model_json_schema()}}
        responses[status] = {"description": DESCRIPTIONS[status], "content": problem_content}
        if status == 401:
            responses[status]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        if status == 503:
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return responses


DESCRIPTIONS = {
    400: "no HTTP/1.1, or ambiguous",
    401: "the key of the service is missing or wrong",
    404: "no such model",
    406: "no form of the answer is accepted",
    408: "the request was not whole in time",
    413: "the body is too large",
    415: "the body is of a type that is not read",
    421: "the host is not served here",
    422: "the request is refused",
    431: "too many headers",
    500: "the service failed",
    503: "overloaded, draining or not ready; Retry-After says when to come back",
    504: "not in time",
}
# What any request can meet before an operation sees it.
ALWAYS = (400, 408, 421, 431, 500, 503)
COMMON_ERRORS = (401, 404, 406, 422, 504)
BODY_ERRORS = (401, 404, 406, 413, 415, 422, 504)

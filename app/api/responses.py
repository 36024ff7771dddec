"""Responses of operations: the headers that name their origin, the shared answer fields, and their documentation."""

from json import JSONEncoder
from typing import Any

from pydantic import BaseModel, Field

from app.api.call import IMAGE_TYPES, MULTIPART
from app.api.fields import parameters
from app.api.negotiation import JSON
from app.checkpoints.manifest import Precision
from app.errors import PROBLEM_JSON
from app.inference.model import Provenance

# Compact, and never a NaN.
to_json = JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Answer(BaseModel):
    """The fields of every answer of a model."""

    model: str = Field(examples=["cgan"])
    digest: str = Field(description="SHA-256 of the archive", examples=["f12893a7ee89" + 52 * "0"])
    precision: Precision = Field(description="of the archive", examples=["bfloat16"])
    runtime: str = Field(
        description="hash of precision, processor model, device and library versions", examples=["0ade62aaf36e2d53"]
    )


class Png(BaseModel):
    """An image."""

    png: str = Field(description="base64")


class ImageItem(BaseModel):
    """A generated image."""

    index: int = Field(examples=[0])
    label: str | None = Field(description="class name; null if the model has no labels", examples=["3"])
    png: str = Field(description="base64")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(examples=["invalid_request"])
    request_id: str | None
    errors: list[dict[str, Any]] | None = Field(None, description="location and message of each fault, with 422")
    reasons: list[str] | None = Field(None, description="why the service is not ready")


def json_content(provenance: Provenance, fields: dict[str, Any]) -> bytes:
    """The JSON of an answer.

    Written directly rather than through the declared model: validating each image takes longer than encoding its PNG.
    A test validates every answer.
    """
    return to_json(vars(provenance) | fields).encode()


def json_with_list(provenance: Provenance, fields: dict[str, Any], name: str, items: bytes) -> bytes:
    """As `json_content`, with a list at the end whose items are encoded JSON, separated by commas."""
    return b'%b,"%b":[%b]}' % (json_content(provenance, fields)[:-1], name.encode(), items)


TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "seconds from the arrival of the request until it must be computed, else 504; default and maximum: "
    "the limit of the service",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": 2.5,
}
DESCRIPTIONS = {
    304: "the copy of the caller is current",
    400: "not HTTP/1.1, or ambiguous",
    401: "the API key is missing or wrong",
    404: "unknown model",
    406: "no media type of the answer is acceptable",
    408: "the request was not complete in time",
    413: "the body is too large",
    415: "unsupported media type of the body",
    421: "the host is not served here",
    422: "the request is invalid",
    431: "too many headers",
    500: "the service failed",
    503: "overloaded, draining or not ready; see Retry-After",
    504: "not computed in time",
}
# Errors that every request can meet before it reaches an operation.
EVERY_REQUEST = (400, 408, 421, 431, 500, 503)
OPERATION = (401, 404, 406, 422, 504)
WITH_BODY = (413, 415)


def documented(
    *media_types: str,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    files: str | None = None,
    many_files: bool = False,
    image_body: bool = False,
    headers: tuple[str, ...] = (),
    not_modified: bool = False,
) -> dict[str, Any]:
    """Arguments of a route decorator that document an operation: `responses` and `openapi_extra`.

    media_types: of the answer. query, body: the models of the query string and the JSON body. files: the form field of
    uploads. image_body: whether the body can be one image file. headers: of the answer, besides those that name its
    origin. not_modified: whether the operation answers `If-None-Match`.
    """
    extra: dict[str, Any] = {"parameters": [*(parameters(query) if query else []), TIMEOUT_PARAMETER]}
    content: dict[str, Any] = {}
    if body is not None:
        content[JSON] = {"schema": body.model_json_schema()}
    if files is not None:
        file = {"type": "string", "format": "binary", "description": "a PNG or JPEG"}
        schema = {"type": "array", "items": file, "minItems": 1} if many_files else file
        content[MULTIPART] = {"schema": {"type": "object", "required": [files], "properties": {files: schema}}}
    if image_body:
        content |= {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in IMAGE_TYPES}
    if content:
        extra["requestBody"] = {"required": True, "content": content}
    errors = OPERATION + (WITH_BODY if content else ())
    names = ("X-Request-Id", "X-Model", "X-Model-Digest", "X-Precision", "X-Runtime", "X-Seed", *headers)
    answer = {
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in media_types
            if media_type != JSON
        },
        "headers": {name: {"schema": {"type": "string"}} for name in names},
    }
    responses: dict[int | str, dict[str, Any]] = {200: answer}
    if not_modified:
        responses[304] = {"description": DESCRIPTIONS[304]}
    return {"responses": responses | error_responses(*errors), "openapi_extra": extra}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of these errors and of those that every request can meet."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*EVERY_REQUEST, *statuses}):
        content = {PROBLEM_JSON: {"schema": Problem.model_json_schema()}}
        responses[status] = {"description": DESCRIPTIONS[status], "content": content}
    if 401 in responses:
        responses[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    responses[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return responses

"""Responses of operations: shared fields, JSON, and the OpenAPI documentation of bodies, headers and errors."""

from collections.abc import Sequence
from json import JSONEncoder
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from app.api.call import MULTIPART
from app.api.fields import LIMITED_BY, REFERENCE, parameters, schema_of
from app.api.negotiation import JSON
from app.checkpoints.manifest import Precision
from app.errors import PROBLEM_JSON
from app.images.shapes import WarningCode
from app.inference.model import Provenance

# Compact, and never a NaN.
to_json = JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Answer(BaseModel):
    """The fields of every response of a model."""

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
    label: str | None = Field(description="class name; null for an image without a label", examples=["3"])
    png: str = Field(description="base64")


class UploadWarning(BaseModel):
    """A sign that an upload shows more than one digit."""

    code: WarningCode
    detail: str = Field(examples=["A frame was seen around the ink; cut it off."])


Warnings = Annotated[
    list[UploadWarning],
    Field(description="signs that the normalized upload is not a single digit; else empty"),
]


class Fault(BaseModel):
    """A fault of a request."""

    location: list[str | int] = Field(description="names and indices that lead to it", examples=[["body", "n"]])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="the phrase of the status", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="how to correct the request, or when to retry")
    code: str = Field(description="stable name of the error", examples=["model_not_found"])
    request_id: str | None = Field(description="as in the header X-Request-Id")
    # Left out rather than null.
    errors: list[Fault] = Field(default_factory=list, description="the faults of the request, with 422")
    reasons: list[str] = Field(default_factory=list, description="why the service is not ready, with 503")


DETAILS: dict[WarningCode, str] = {
    "frame": "A frame was seen around the ink, and is part of the image; cut it off.",
    "several_shapes": "Several shapes were seen side by side; the models expect one digit an image.",
}


def describe_warnings(codes: Sequence[WarningCode]) -> list[dict[str, str]]:
    """The `UploadWarning`s of a response."""
    return [{"code": code, "detail": DETAILS[code]} for code in codes]


def json_content(provenance: Provenance, fields: dict[str, Any]) -> bytes:
    """The JSON of a response.

    Not written through the declared model, because validating an image takes longer than encoding its PNG. A test
    validates every response.
    """
    return to_json(vars(provenance) | fields).encode()


def json_with_list(provenance: Provenance, fields: dict[str, Any], name: str, items: bytes) -> bytes:
    """As `json_content`, with a list at the end whose items are encoded JSON, separated by commas."""
    return b'%b,"%b":[%b]}' % (json_content(provenance, fields)[:-1], name.encode(), items)


# The documented type of a body that is one image: client generators do not support others, such as image/png.
OCTET_STREAM = "application/octet-stream"
BINARY = {"type": "string", "format": "binary"}
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "seconds from the arrival of the request until it must be computed, else 504; default and maximum: "
    "the limit of the service",
    "schema": {"type": "number", "exclusiveMinimum": 0, "examples": [2.5]},
}
IF_NONE_MATCH_PARAMETER: dict[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "the ETag of the copy that the caller has",
    "schema": {"type": "string", "examples": ['"0123456789abcdef0123456789abcdef"']},
}
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "also in the logs", "schema": {"type": "string"}},
    "X-Model": {"description": "name of the model", "schema": {"type": "string"}},
    "X-Model-Digest": {"description": "SHA-256 of the archive", "schema": {"type": "string"}},
    "X-Precision": {"description": "of the archive", "schema": {"type": "string"}},
    "X-Runtime": {
        "description": "hash of precision, processor model, device and library versions",
        "schema": {"type": "string"},
    },
    "X-Seed": {"description": "the seed that was used", "schema": {"type": "integer"}},
}
DESCRIPTIONS = {
    304: "the copy of the caller is current",
    400: "not HTTP/1.1, or ambiguous",
    401: "the API key is missing or wrong",
    404: "unknown model",
    406: "no media type of the response is acceptable",
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
# Errors that any request can get before it reaches an operation.
EVERY_REQUEST = (400, 408, 421, 431, 500, 503)
OPERATION = (401, 404, 406, 422, 504)
WITH_BODY = (413, 415)


def documented(
    *media_types: str,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    form: type[BaseModel] | None = None,
    image_body: bool = False,
    headers: dict[str, dict[str, Any]] | None = None,
    not_modified: bool = False,
) -> dict[str, Any]:
    """Arguments of a route decorator that document an operation.

    media_types: of the response. query, body, form: the models of the query string, the JSON body and the multipart
    form.
    image_body: whether the body can be one image file. headers: of the response, besides those of its provenance.
    not_modified: whether the operation supports `If-None-Match`.
    """
    extra: dict[str, Any] = {"parameters": [*(parameters(query) if query else []), TIMEOUT_PARAMETER]}
    content = {
        media_type: {"schema": schema_of(model)} for media_type, model in ((JSON, body), (MULTIPART, form)) if model
    }
    if image_body:
        image = BINARY | {"description": "one PNG or JPEG", LIMITED_BY: "max_upload_bytes"}
        content[OCTET_STREAM] = {"schema": image}
    if content:
        extra["requestBody"] = {"required": True, "content": content}
    errors = OPERATION + (WITH_BODY if content else ())
    answer = {
        "content": {media_type: {"schema": BINARY} for media_type in media_types if media_type != JSON},
        "headers": HEADERS | (headers or {}),
    }
    responses: dict[int | str, dict[str, Any]] = {200: answer}
    if not_modified:
        extra["parameters"].append(IF_NONE_MATCH_PARAMETER)
        responses[304] = {"description": DESCRIPTIONS[304]}
    arguments = {"responses": responses | error_responses(*errors), "openapi_extra": extra}
    # By default FastAPI documents a JSON response; the class `Response` has no media type.
    return arguments if JSON in media_types else arguments | {"response_class": Response}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of these errors and of those that any request can get."""
    content = {PROBLEM_JSON: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": DESCRIPTIONS[status], "content": content}
        for status in sorted({*EVERY_REQUEST, *statuses})
    }
    if 401 in responses:
        responses[401]["headers"] = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
    responses[503]["headers"] = {
        "Retry-After": {"description": "seconds after which to retry", "schema": {"type": "integer"}}
    }
    return responses

"""Request bodies, bounded and strict: JSON to a model, multipart to files. Knows no operation."""

import json
import re
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive

from app.api.dependencies import state_of
from app.api.forms import FileForm, InvalidForm
from app.errors import BodyTooLarge, CallerGone, InvalidRequest, UnsupportedMediaType

JSON = "application/json"
MULTIPART = "multipart/form-data"
# One image file as the body itself. Which of them it is, its first bytes say.
IMAGE_TYPES = ("image/png", "image/jpeg", "application/octet-stream")

CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
# A quoted value. Possessive, and to the end where it is not closed, so that no header takes more than one pass.
QUOTED = re.compile(r"=\s*\"(?:[^\"\\]|\\.)*+\"?")

Model = TypeVar("Model", bound=BaseModel)


def refuse_query(request: Request) -> None:
    """Raises InvalidRequest for a query beside a JSON body: options stand in the one or in the other."""
    if request.query_params:
        raise InvalidRequest("with a JSON body every option stands in the body, none in the query")


async def refuse_any_query(request: Request) -> None:
    """A dependency that raises InvalidRequest for a query where there are no options."""
    if request.scope["query_string"]:
        raise InvalidRequest("there are no options here")


async def refuse_repeated_names(request: Request) -> None:
    """A dependency that raises InvalidRequest for a query that gives an option twice."""
    if len(request.query_params.multi_items()) != len(request.query_params):
        raise InvalidRequest("an option is given twice in the query")


def read_query(request: Request, model: type[Model]) -> Model:
    """The query as `model`, as FastAPI reads it for a route. Raises RequestValidationError."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**item, "loc": ("query", *item["loc"])} for item in found]) from None


def media_type(request: Request) -> str:
    """The body's media type in lower case without its parameters; empty where none is given, or more than one."""
    given = request.headers.getlist("content-type")
    return given[0].split(";")[0].strip().lower() if len(given) == 1 else ""


def require_media_type(request: Request, *accepted: str) -> str:
    """The body's media type.

    Raises UnsupportedMediaType unless it is one of `accepted`, uncompressed, with each parameter once: of two
    boundaries or charsets each reader takes another one (RFC 6838, section 4.3).
    """
    if any(coding.strip().lower() != "identity" for coding in request.headers.getlist("content-encoding")):
        raise UnsupportedMediaType("compressed bodies are not read")
    given = media_type(request)
    if given not in accepted:
        raise UnsupportedMediaType(f"the body is read as {' or '.join(accepted)}; Content-Type must say so")
    refuse_repeated_parameters(request.headers["content-type"])
    return given


def refuse_repeated_parameters(content_type: str) -> None:
    """Raises UnsupportedMediaType for a parameter that is given twice, also in an extended form, as in `charset*=`."""
    parameters = QUOTED.sub("=", content_type).split(";")[1:]
    named = [re.split(r"[=*]", parameter)[0].strip().lower() for parameter in parameters if parameter.strip()]
    if len(named) != len(set(named)):
        raise UnsupportedMediaType("Content-Type gives a parameter twice")


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body, in UTF-8 without a byte order mark, as `model`, which decides how strict.

    A name given twice is refused, of which RFC 8259 lets each reader take another value. Raises
    UnsupportedMediaType for another charset, BodyTooLarge, InvalidRequest and RequestValidationError.
    """
    charset = CHARSET.search(request.headers.get("content-type", ""))
    if charset is not None and charset[1].lower() not in {"utf-8", "us-ascii"}:
        raise UnsupportedMediaType("JSON is read in UTF-8")
    content = await read_all(request, state_of(request)["settings"].max_json_bytes)
    try:
        asked = model.model_validate_json(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found]) from None
    # Every name has a colon: where there are no more colons than fields, no name is there twice.
    if content.count(b":") > len(asked.model_fields_set):
        json.loads(content, object_pairs_hook=refuse_pairs)
    return asked


def refuse_pairs(pairs: list[tuple[str, Any]]) -> None:
    """Raises InvalidRequest for a name that an object has twice."""
    if len(dict(pairs)) != len(pairs):
        raise InvalidRequest("a name is given twice in the body")


async def read_upload(request: Request, given: str, field: str, max_files: int) -> list[bytes]:
    """The contents of uploaded files: of a multipart body, or of one that is an image itself.

    given: the body's media type. Raises BodyTooLarge, InvalidRequest and UnsupportedMediaType.
    """
    if given == MULTIPART:
        return await read_files(request, field, max_files)
    return [await read_all(request, state_of(request)["settings"].max_upload_bytes)]


async def read_files(request: Request, field: str, max_files: int) -> list[bytes]:
    """The contents of the files of a multipart body, all under `field`, at least one.

    Names and types that the caller gave them are not looked at. Raises BodyTooLarge, InvalidRequest, and
    UnsupportedMediaType for a file that is not sent as it is.
    """
    limit = state_of(request)["settings"].max_upload_bytes
    wanted = f"the body is multipart/form-data with 1 to {max_files} files in the field {field!r} and nothing else"
    if max_files == 1:
        wanted = f"the body is multipart/form-data with one file in the field {field!r} and nothing else"
    try:
        form = FileForm(request.headers["content-type"], field, max_files)
        async for piece in bounded(request, limit).stream():
            form.feed(piece)
        return form.files()
    except InvalidForm as error:
        raise InvalidRequest(wanted) from error


async def read_all(request: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge over `limit` bytes and CallerGone where it does not end."""
    refuse_long(request, limit)
    receive = _bounded_receive(request.receive, limit)
    message = await receive()
    content: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return content  # most bodies come whole
    parts = [content]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


def bounded(request: Request, limit: int) -> Request:
    """The same request with a body of at most `limit` bytes, counted as they come.

    Raises BodyTooLarge where Content-Length says more; reading more raises it, too, whatever Content-Length said.
    """
    refuse_long(request, limit)
    return Request(request.scope, _bounded_receive(request.receive, limit))


def refuse_long(request: Request, limit: int) -> None:
    """Raises BodyTooLarge, before anything is read, for a body that says it has more than `limit` bytes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > limit):
        raise BodyTooLarge(f"the body has more than {limit} bytes")


def _bounded_receive(receive: Receive, limit: int) -> Receive:
    left = limit

    async def count() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone("the connection was closed before the body was whole")
        left -= len(message.get("body", b""))
        if left < 0:
            raise BodyTooLarge(f"the body has more than {limit} bytes")
        return message

    return count


def request_body(
    *, json: type[BaseModel] | None = None, files: str | None = None, many: bool = False, plain: bool = False
) -> dict[str, Any]:
    """The OpenAPI description of a body that the functions above read, for `openapi_extra`.

    plain: whether the body may also be one image file itself.
    """
    content: dict[str, Any] = {}
    if json is not None:
        content[JSON] = {"schema": json.model_json_schema()}
    if files is not None:
        file = {"type": "string", "format": "binary", "description": "a PNG or JPEG"}
        schema = {"type": "array", "items": file, "minItems": 1} if many else file
        content[MULTIPART] = {"schema": {"type": "object", "required": [files], "properties": {files: schema}}}
    if plain:
        content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES}
    return {"requestBody": {"required": True, "content": content}}

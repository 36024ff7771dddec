"""The documentation: Swagger UI at `GET /docs`, and at `GET /openapi.json` the OpenAPI description that it shows.

These routes take no key: a browser sends one only after the page has loaded, and the description holds no secrets.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.call import MULTIPART
from app.api.fields import LIMITED_BY, REFERENCE, schema_of
from app.api.middleware import is_public
from app.api.negotiation import JSON
from app.api.responses import Problem
from app.api.static_file import File
from app.settings import Settings

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).with_name("swagger_ui")
# By file: how long a browser may keep it. The page names the vendored files with their version.
CACHE_CONTROL = {
    "initializer.js": "no-cache",
    "swagger-ui-bundle.js": "public, max-age=31536000, immutable",
    "swagger-ui.css": "public, max-age=31536000, immutable",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Icons of the style sheet, and images that an operation has answered with.
        "img-src data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


# Without `async`, these run on a thread, since compression takes time.
@router.get("/docs")
def page(request: Request) -> Response:
    """The page that loads Swagger UI."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return file("index.html").response(request, headers)


@router.get("/docs/{name}")
def asset(request: Request, name: str) -> Response:
    """A script or style sheet of the page. Raises HTTPException (404) for any other name."""
    if name not in CACHE_CONTROL:
        raise HTTPException(404)
    return file(name).response(request, {"Cache-Control": CACHE_CONTROL[name]})


@lru_cache(maxsize=4)
def file(name: str) -> File:
    """A file of the page."""
    return File.read(FOLDER / name)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The OpenAPI description."""
    description: File = request.app.state.openapi
    return description.response(request, {})


def describe(app: FastAPI, settings: Settings) -> None:
    """Complete the OpenAPI description of the app, whose routes are final, and render it.

    Generators of clients name the classes of requests and problems only if they are components. Maxima and the need for
    a key, which `Guard` checks, are those of the settings.
    """
    description = app.openapi()  # cached by FastAPI
    components = description["components"]["schemas"]
    for answer in components.values():  # clients must accept fields that a later version adds
        if answer.get("additionalProperties") is False:
            del answer["additionalProperties"]
    _add_component(schema_of(Problem), components)
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                components |= parameter["schema"].pop("$defs", {})
            content = operation.get("requestBody", {}).get("content", {})
            for media_type in (JSON, MULTIPART):
                if media_type in content:
                    content[media_type]["schema"] = _add_component(content[media_type]["schema"], components)
            if settings.api_key and not is_public(path):
                operation["security"] = [{"HTTPBearer": []}]
    if settings.api_key:
        description["components"]["securitySchemes"] = {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    for schema in _limited(description):
        keyword = {"array": "maxItems", "string": "maxLength"}.get(schema["type"], "maximum")
        limit = getattr(settings, schema.pop(LIMITED_BY))
        schema[keyword] = min(limit, schema.get(keyword, limit))
    app.state.openapi = File.of(bytes(JSONResponse(description).body), JSON)


def _add_component(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, str]:
    """Move a schema with a title, and its definitions, to the components, and return a reference to it."""
    components |= schema.pop("$defs", {}) | {schema["title"]: schema}
    return {"$ref": REFERENCE.format(model=schema["title"])}


def _limited(part: object) -> Iterator[dict[str, Any]]:
    """The schemas that a setting limits."""
    if isinstance(part, dict):
        if LIMITED_BY in part:
            yield part
        for value in part.values():
            yield from _limited(value)
    elif isinstance(part, list):
        for value in part:
            yield from _limited(value)

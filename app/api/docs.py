"""`GET /openapi.json`, and `GET /docs`: the same as a page for people, without a script and from no other host."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

router = APIRouter(include_in_schema=False)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}td,th{border-bottom:1px solid #8886;text-align:left"
    ";padding:.2rem .6rem;vertical-align:top}code,h2{font-family:ui-monospace,monospace}h2{margin-top:2.5rem}"
)


@router.get("/openapi.json")
async def description(request: Request) -> JSONResponse:
    """The OpenAPI description."""
    app: FastAPI = request.app
    return JSONResponse(app.openapi())


@router.get("/docs")
async def page(request: Request) -> Response:
    """The OpenAPI description as a page."""
    app: FastAPI = request.app
    return HTMLResponse("".join(_page(app.openapi())), headers={"Content-Security-Policy": POLICY})


def _page(described: dict[str, Any]) -> Iterator[str]:
    about, schemas = described["info"], described["components"]["schemas"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(about["title"])}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    yield f"<h1>{escape(about['title'])} {escape(about['version'])}</h1><p>{escape(about['description'])}</p>"
    yield '<p>For programs: <a href="openapi.json">openapi.json</a></p>'
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"<h2>{method.upper()} {escape(path)}</h2><p><b>{escape(operation['summary'])}.</b> "
            yield f"{escape(operation.get('description', ''))}</p>"
            yield from _operation(operation)
    yield "<h1>What answers and bodies hold</h1>"
    for name, schema in schemas.items():
        if "properties" in schema:
            yield f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(schema.get("description", ""))}</p>'
            yield _fields(schema)


def _operation(operation: dict[str, Any]) -> Iterator[str]:
    if parameters := operation.get("parameters"):
        rows = [(one["name"], one["in"], _kind(one["schema"]), _note(one["schema"])) for one in parameters]
        yield _table(("parameter", "in", "type", ""), rows)
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>A body of <code>{escape(kind)}</code></p>{_fields(body['schema'])}"
    answers = [
        (status, answer["description"], ", ".join(answer.get("content", {})))
        for status, answer in operation["responses"].items()
    ]
    yield _table(("status", "means", "type"), answers)


def _fields(schema: dict[str, Any]) -> str:
    rows = [(name, _kind(field), _note(field)) for name, field in schema.get("properties", {}).items()]
    return _table(("field", "type", ""), rows) if rows else ""


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = str(schema.get("const", schema.get("type", "any")))
    return f"{kind} of {_kind(schema['items'])}" if "items" in schema else kind


def _note(schema: dict[str, Any]) -> str:
    default = f"default {schema['default']}" if schema.get("default") is not None else ""
    return "; ".join(filter(None, (schema.get("description", ""), default)))


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [heads, *rows]
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in line) for line in lines]
    cells[0] = cells[0].replace("td>", "th>")
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"

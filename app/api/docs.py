"""The documentation: Swagger UI at `GET /docs`, and at `GET /openapi.json` the OpenAPI description that it shows.

These routes take no key: a browser sends one only after the page has loaded, and the description holds no secrets.
"""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from app.api.middleware import is_public

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


@router.get("/")
async def root() -> RedirectResponse:
    """Redirect to the documentation, with a relative location that also works behind the path prefix of a proxy."""
    return RedirectResponse("docs")


@router.get("/docs")
async def page() -> FileResponse:
    """The page that loads Swagger UI."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(FOLDER / "index.html", headers=headers)


@router.get("/docs/{name}")
async def asset(name: str) -> FileResponse:
    """A script or style sheet of the page. Raises HTTPException (404) for any other name."""
    if name not in CACHE_CONTROL:
        raise HTTPException(404)
    return FileResponse(FOLDER / name, headers={"Cache-Control": CACHE_CONTROL[name]})


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The OpenAPI description, rendered at the first request."""
    app = request.app
    if not hasattr(app.state, "openapi_json"):
        app.state.openapi_json = JSONResponse(app.openapi()).body
    return Response(app.state.openapi_json, media_type="application/json")


def document_key(app: FastAPI) -> None:
    """Add the API key, which `Guard` checks, to the description of every operation that needs it."""
    description = app.openapi()  # cached by FastAPI
    description["components"]["securitySchemes"] = {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    for path, operations in description["paths"].items():
        if not is_public(path):
            for operation in operations.values():
                operation["security"] = [{"HTTPBearer": []}]

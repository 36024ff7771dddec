"""The studio: a page at `GET /` that shows what the loaded models do, using only the public API.

Its files in `app/web/` are served as they are, without a build step. They need no key: the page asks for it and
sends it with its requests. The path of a file contains a digest of all of them, so that browsers may cache it forever.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import app
from app.api.service_state import state_of
from app.api.static_file import MEDIA_TYPES, File

router = APIRouter(include_in_schema=False)

FOLDER = Path(app.__file__).with_name("web")
TEMPLATE = "index.html"
# By the name that modules import: the vendored file.
IMPORTS = {"preact": "vendor/preact.mjs", "preact/hooks": "vendor/hooks.mjs", "htm": "vendor/htm.mjs"}
POLICY = (
    "default-src 'none'",
    "script-src 'self' 'sha256-{import_map}'",
    "style-src 'self'",
    # Images that an operation has answered with, and pictures that a person has chosen.
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Studio:
    """The page, and the files that it loads by their paths, under one digest."""

    page: File
    policy: str
    digest: str
    files: dict[str, File]


@lru_cache(maxsize=1)
def studio() -> Studio:
    """Read and compress all files, once in a process."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix in MEDIA_TYPES and path.name != TEMPLATE)
    files = {path.relative_to(FOLDER).as_posix(): File.read(path) for path in paths}
    hashed = hashlib.sha256()
    for name, file in files.items():
        hashed.update(f"{name}\0{len(file.content)}\0".encode() + file.content)
    digest = hashed.hexdigest()[:16]
    base = f"studio/{digest}"
    import_map = json.dumps({"imports": {name: f"./{base}/{path}" for name, path in IMPORTS.items()}})
    scripts = [name for name, file in files.items() if file.media_type == "text/javascript"]
    page = (FOLDER / TEMPLATE).read_text()
    for name, value in {
        "base": base,
        "import_map": import_map,
        # Each file in rooms/ is a room.
        "rooms": " ".join(Path(name).stem for name in files if name.startswith("rooms/")),
        # All at once, rather than each module after the one that imports it.
        "preloads": "\n    ".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in scripts),
    }.items():
        page = page.replace(f"{{{{ {name} }}}}", value)
    allowed = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    policy = "; ".join(POLICY).format(import_map=allowed)
    return Studio(File.of(page.encode(), "text/html"), policy, digest, files)


@router.get("/")
async def page(request: Request) -> Response:
    """The studio, or where it is turned off, a redirect to the documentation.

    All locations are relative, so that they also work behind the path prefix of a proxy.
    """
    if not state_of(request)["settings"].studio:
        return RedirectResponse("docs")
    served = studio()
    headers = {"Content-Security-Policy": served.policy, "Cache-Control": "no-cache"}
    return served.page.response(request, headers)


@router.get("/studio/{digest}/{path:path}")
async def asset(request: Request, digest: str, path: str) -> Response:
    """A file of the page. Raises HTTPException (404) for another path, or the digest of another version."""
    if not state_of(request)["settings"].studio or digest != studio().digest or path not in studio().files:
        raise HTTPException(404)
    return studio().files[path].response(request, {"Cache-Control": FOREVER, "X-Content-Type-Options": "nosniff"})

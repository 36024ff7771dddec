"""The files of the studio and of the documentation page."""

import gzip
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from app.api.negotiation import accepts_gzip

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file in memory, also compressed. Starlette's FileResponse reads a file in pieces on threads, also for HEAD."""

    content: bytes
    compressed: bytes
    media_type: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "File":
        """Compress the content. Without a time, so that every process has the same bytes."""
        return cls(content, gzip.compress(content, 9, mtime=0), media_type)

    @classmethod
    def read(cls, path: Path) -> "File":
        """A file on disk with a suffix of MEDIA_TYPES."""
        return cls.of(path.read_bytes(), MEDIA_TYPES[path.suffix])

    def response(self, request: Request, headers: dict[str, str]) -> Response:
        """The file, compressed if the request accepts that."""
        headers = {**headers, "Vary": "Accept-Encoding"}
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            return Response(self.compressed, media_type=self.media_type, headers=headers | {"Content-Encoding": "gzip"})
        return Response(self.content, media_type=self.media_type, headers=headers)

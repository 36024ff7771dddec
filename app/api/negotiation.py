"""Content negotiation by the Accept header (RFC 9110, section 12.5.1), and conditional requests."""

import re
from functools import lru_cache

from app.errors import NotAcceptable

JSON = "application/json"
PNG = "image/png"
APNG = "image/apng"
NPZ = "application/x-npz"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
ZIP = "application/zip"
IDX = "application/x-idx"

MAX_RANGES = 32


# There are few client programs, and each always sends the same header.
@lru_cache(maxsize=64)
def negotiate(accept: str, offered: tuple[str, ...]) -> str:
    """The offered media type with the highest quality, the first one of equals. An empty header accepts all.

    Raises NotAcceptable.
    """
    if not accept.strip():
        return offered[0]
    ranges = [parsed for text in accept.split(",")[:MAX_RANGES] if (parsed := _parse(text)) is not None]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"this operation answers as {', '.join(offered)}")
    return best


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the Accept-Encoding header of a request names gzip, with a quality above 0 (RFC 9110, section 12.5.3)."""
    for coding in accept_encoding.lower().split(",")[:MAX_RANGES]:
        name, *parameters = (part.strip() for part in coding.split(";"))
        if name == "gzip":
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
    return False


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names the ETag, by weak comparison (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in named or etag in named


def _parse(text: str) -> tuple[str, float] | None:
    """`type/subtype;q=0.5` to the media range and its quality, None if malformed."""
    media_range, *parameters = (part.strip().lower() for part in text.split(";"))
    if "/" not in media_range:
        return None
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
            if not 0 <= quality <= 1:
                return None
    return media_range, quality


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific matching range, 0 without a match."""
    for candidate in (media_type, media_type.split("/", maxsplit=1)[0] + "/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == candidate]
        if found:
            return max(found)
    return 0.0

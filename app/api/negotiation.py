"""The Accept header to one of the forms an operation can answer in (RFC 9110, section 12.5.1)."""

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from starlette.requests import Request

from app.errors import NotAcceptable

JSON = "application/json"
PNG = "image/png"
APNG = "image/apng"
NPZ = "application/x-npz"

MAX_RANGES = 32


def accepts(*forms: str) -> Callable[[Request], Coroutine[Any, Any, str]]:
    """A dependency that gives the caller's favourite among `forms`; the first one where all are equal."""

    async def accepted(request: Request) -> str:
        return favourite(request, forms)

    return accepted


def favourite(request: Request, forms: tuple[str, ...]) -> str:
    """The caller's favourite among `forms`. Raises NotAcceptable where it takes none of them."""
    return negotiate(",".join(request.headers.getlist("accept")), forms)


# Callers are few programs, each with a header that it always sends.
@lru_cache(maxsize=64)
def negotiate(header: str, forms: tuple[str, ...]) -> str:
    """The form with the highest quality; the earlier of two equal ones. An empty header accepts all.

    Raises NotAcceptable when no form is accepted.
    """
    ranges = [parsed for text in header.split(",")[:MAX_RANGES] if (parsed := _parse(text)) is not None]
    if not header.strip():
        return forms[0]
    qualities = {form: _quality(form, ranges) for form in forms}
    best = max(forms, key=lambda form: qualities[form])
    if qualities[best] <= 0:
        raise NotAcceptable(f"this operation answers as {', '.join(forms)}")
    return best


def _parse(text: str) -> tuple[str, float] | None:
    """`type/subtype;q=0.5` to the range and its quality; None where it is neither."""
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


def _quality(form: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers the form, 0 where none does."""
    for candidate in (form, form.split("/", maxsplit=1)[0] + "/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == candidate]
        if found:
            return max(found)
    return 0.0

"""Answers to what never became a request, ready to be sent. Knows nothing of connections.

They have no request id, as there was no request to give one to, and are the last ones of their connections.
"""

import json
import random
from typing import NamedTuple

from app.api.middleware import MAX_HEADER_BYTES
from app.errors import (
    MAX_RETRY_AFTER_S,
    PHRASES,
    PROBLEM_JSON,
    BadRequest,
    HeadersTooLarge,
    RequestTimeout,
    ServiceError,
    TooManyCallers,
)


class Refusal(NamedTuple):
    """The status and the code of an error, and the whole answer that it has, from its status line to its last byte."""

    status: int
    code: str
    answer: bytes


def refusal(error: ServiceError, after_s: int = 0) -> Refusal:
    """The refusal that an error has; after_s: when to come back."""
    status = error.status
    body = {"type": "about:blank", "title": PHRASES[status], "status": status, "detail": error.detail}
    content = json.dumps(body | {"code": error.code, "request_id": None})
    lines = [
        f"HTTP/1.1 {status} {PHRASES[status]}",
        f"content-type: {PROBLEM_JSON}",
        f"content-length: {len(content)}",
        "connection: close",
    ]
    if after_s:
        lines.append(f"retry-after: {after_s}")
    return Refusal(status, error.code, "\r\n".join([*lines, "", content]).encode())


TOO_LARGE = refusal(HeadersTooLarge(f"a request has at most {MAX_HEADER_BYTES} bytes of headers"))
MALFORMED = refusal(BadRequest("this is no request of HTTP/1.1, or one that can be read in two ways"))
LATE = refusal(RequestTimeout("the request was not whole in time"))
BUSY = [
    refusal(TooManyCallers("there are as many connections as the service takes"), after_s)
    for after_s in range(1, MAX_RETRY_AFTER_S + 1)
]


def busy() -> Refusal:
    """What one caller too many is told, with a time to come back that is drawn."""
    return random.choice(BUSY)  # noqa: S311

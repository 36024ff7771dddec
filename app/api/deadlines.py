"""How long a caller waits: a header to a moment of the monotonic clock. Knows no operation."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Scope

from app.errors import DeadlineExceeded, InvalidRequest

T = TypeVar("T")

HEADER = b"x-request-timeout"
SECONDS = re.compile(rb"[0-9]{1,99}(\.[0-9]{1,99})?")
# For `openapi_extra`. Read by hand, once a request: a parameter that FastAPI resolves costs some 15 us.
PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "X-Request-Timeout",
            "in": "header",
            "required": False,
            "description": "seconds after its arrival in which the request is to be computed, else 504; no more than "
            "the service's own limit, which is also the default",
            "schema": {"type": "number", "exclusiveMinimum": 0},
            "example": 2.5,
        }
    ]
}


def deadline_of(scope: Scope, longest_s: float) -> float:
    """The moment of the monotonic clock after which nobody wants the answer.

    Raises InvalidRequest for a timeout that is no number of seconds above 0, or is given twice.
    """
    timeout = longest_s
    given = [value for name, value in scope["headers"] if name == HEADER]
    if given:
        if len(given) > 1 or not SECONDS.fullmatch(given[0]) or float(given[0]) <= 0:
            raise InvalidRequest("X-Request-Timeout is one number of seconds above 0")
        timeout = min(float(given[0]), longest_s)
    arrived_at: float = scope["arrived_at"]
    return arrived_at + timeout


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T:
    """The result of `work`, which is cancelled at `deadline`. Raises DeadlineExceeded then."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the upload was not decoded in time; try again later") from None

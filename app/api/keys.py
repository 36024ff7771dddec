"""The key of the service, where it has one. Knows no operation and no path: what a router includes, it guards."""

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from app.errors import Unauthorized

Given = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]


def require_key(key: str) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that raises Unauthorized unless the request has `Authorization: Bearer <key>`, once.

    Digests are compared, in constant time: how long it takes tells neither the key's length nor its beginning.
    """
    expected = hashlib.sha256(key.encode()).digest()

    async def check(request: Request, given: Given) -> None:
        sent = given.credentials if given and given.scheme.lower() == "bearer" else ""
        right = hmac.compare_digest(hashlib.sha256(sent.encode()).digest(), expected)
        if not right or len(request.headers.getlist("authorization")) != 1:
            raise Unauthorized("the service has a key; send it as Authorization: Bearer")

    return check

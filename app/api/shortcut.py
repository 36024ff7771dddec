"""The shortest way to an operation: from its path to its function, past the router. Knows no operation.

FastAPI looks for the route, solves its dependencies and opens stacks for what they might want closed: for a request of
one row, which costs little else, a good part of what the event loop does (docs/performance.md says how much). An
operation that takes nothing but its call can be called at once. It is declared with FastAPI all the same, which
documents it and serves it wherever a dependency guards it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ServiceError, problem_of, validation_problem


@dataclass(frozen=True)
class Operation:
    """What the route calls: it gives the same answer, and raises the same errors, with and without the route."""

    route: BaseRoute
    answer: Callable[[Request], Awaitable[Response]]


class Shortcut:
    """Calls operations by method and path; everything else goes on to the router."""

    def __init__(self, app: ASGIApp, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._app = app
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        operation = self._operations.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if operation is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = operation.route  # for the metrics
        request = Request(scope, receive, send)
        try:
            response = await operation.answer(request)
        except ServiceError as error:
            response = problem_of(request, error)
        except RequestValidationError as error:
            response = validation_problem(request, error)
        await response(scope, receive, send)

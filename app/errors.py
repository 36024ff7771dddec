"""The errors of the service and their form, `application/problem+json` (RFC 9457).

ServiceError                  500 internal_error
├── BadRequest                400 bad_request
├── Unauthorized              401 unauthorized
├── InvalidRequest            422 invalid_request
│   ├── InvalidImage          422 invalid_image
│   └── CapabilityMissing     422 capability_missing
├── ModelNotFound             404 model_not_found
├── NotShipped                404 not_shipped
├── NotAcceptable             406 not_acceptable
├── RequestTimeout            408 request_timeout
├── BodyTooLarge              413 body_too_large
├── UnsupportedMediaType      415 unsupported_media_type
├── Misdirected               421 misdirected_request
├── HeadersTooLarge           431 headers_too_large
├── CallerGone                499 caller_gone
├── InferenceFailed           500 inference_failed
├── Unavailable               503 unavailable, with Retry-After
│   ├── NotReady              503 not_ready
│   ├── Overloaded            503 overloaded
│   ├── TooManyCallers        503 too_many_callers
│   ├── OutOfMemory           503 out_of_memory
│   ├── WorkerLost            503 worker_lost
│   └── Draining              503 draining
└── DeadlineExceeded          504 deadline_exceeded

For the metrics each has a cause: a mistake of the caller (4xx), overload (Overloaded, TooManyCallers), a missed
deadline (DeadlineExceeded), or else the service itself.

The detail is written for the caller, where the error is raised, and never echoes input. While the service cannot serve,
`inference.readiness` chooses between NotReady, Draining and WorkerLost.
"""

import logging
import random
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
# Prefix of the paths of the Open Inference Protocol, which has its own error format.
OPEN_INFERENCE = "/v2"
MAX_FIELD_ERRORS = 8
MAX_RETRY_AFTER_S = 3
PHRASES = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
# Code and detail of the errors that Starlette raises, by status.
STARLETTE_ERRORS = {
    404: ("not_found", "no such path; /docs lists all operations"),
    405: ("method_not_allowed", "the path does not support this method"),
}

Cause = Literal["caller", "overload", "deadline", "service"]
# By code, for the metrics. The subclasses of `ServiceError` add theirs.
CAUSES: dict[str, Cause] = {"internal_error": "service", "not_found": "caller", "method_not_allowed": "caller"}


class ServiceError(Exception):
    """Base of the errors that map to an HTTP response. detail: one sentence for the caller.

    Subclasses pass the members that differ from those of their base: `class Draining(Unavailable, code="draining")`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: ClassVar[dict[str, str]] = {}

    def __init_subclass__(
        cls, *, status: int | None = None, code: str, headers: dict[str, str] | None = None, cause: Cause | None = None
    ) -> None:
        cls.status = cls.status if status is None else status
        cls.code = code
        cls.headers = cls.headers if headers is None else headers
        CAUSES[code] = cause or ("caller" if cls.status < 500 else "service")

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError, status=400, code="bad_request"):
    """The request is not valid HTTP, or is ambiguous."""


class Unauthorized(ServiceError, status=401, code="unauthorized", headers={"WWW-Authenticate": "Bearer"}):
    """The request lacks the API key of the service."""


class InvalidRequest(ServiceError, status=422, code="invalid_request"):
    """The request is well-formed but cannot be served."""

    of_all_models = False  # whether it is what a search over all models found


class InvalidImage(InvalidRequest, code="invalid_image"):
    """An upload is not a supported image."""


class CapabilityMissing(InvalidRequest, code="capability_missing"):
    """The model cannot do what is requested; the detail names one that can."""

    def __init__(self, detail: str, *, has_network: bool = True) -> None:
        """has_network: whether the model has the network that is needed, and only options do not fit it."""
        super().__init__(detail)
        self.has_network = has_network


class ModelNotFound(ServiceError, status=404, code="model_not_found"):
    """No loaded model has the requested name."""


class NotShipped(ServiceError, status=404, code="not_shipped"):
    """The checkpoint of the model has no such picture, or no history."""


class NotAcceptable(ServiceError, status=406, code="not_acceptable"):
    """No media type of the answer matches the Accept header."""


class RequestTimeout(ServiceError, status=408, code="request_timeout"):
    """The request was not complete in time."""


class BodyTooLarge(ServiceError, status=413, code="body_too_large", headers={"Connection": "close"}):
    """The request body exceeds the limit. The rest is not read."""


class UnsupportedMediaType(ServiceError, status=415, code="unsupported_media_type"):
    """The operation does not support the media type of the body."""


class Misdirected(ServiceError, status=421, code="misdirected_request"):
    """The Host header names a host that is not served here."""


class HeadersTooLarge(ServiceError, status=431, code="headers_too_large"):
    """The headers exceed the limit."""


class CallerGone(ServiceError, status=499, code="caller_gone"):
    """The caller disconnected before the answer. 499 is the status that nginx logs for it."""


class InferenceFailed(ServiceError, code="inference_failed"):
    """The network raised or returned values that are not finite."""


class Unavailable(ServiceError, status=503, code="unavailable"):
    """A temporary condition. The answer has a Retry-After header."""


class NotReady(Unavailable, code="not_ready"):
    """The models are still being loaded."""


class Overloaded(Unavailable, code="overloaded", cause="overload"):
    """A bound on what is in flight is reached."""


class TooManyCallers(Unavailable, code="too_many_callers", cause="overload"):
    """Too many connections are open."""


class OutOfMemory(Unavailable, code="out_of_memory"):
    """There is no memory for a batch or an answer."""

    def __init__(self, detail: str = "out of memory; request fewer images or retry later") -> None:
        super().__init__(detail)


class WorkerLost(Unavailable, code="worker_lost"):
    """A worker thread ended or hangs. The process exits, so that a supervisor restarts it."""

    def __init__(self, detail: str = "the service has failed and is about to restart") -> None:
        super().__init__(detail)


class Draining(Unavailable, code="draining"):
    """The process is shutting down."""

    def __init__(self, detail: str = "the service is shutting down") -> None:
        super().__init__(detail)


class DeadlineExceeded(ServiceError, status=504, code="deadline_exceeded", cause="deadline"):
    """The answer was not computed in time."""


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **extensions: Any,
) -> JSONResponse:
    """An `application/problem+json` response (RFC 9457, section 3), or `{"error": detail}` below `/v2`.

    extensions: further members of a problem.
    """
    request.scope["problem_code"] = code  # for the metrics
    if f"{request.scope.get('path', '')}/".startswith(f"{OPEN_INFERENCE}/"):
        return JSONResponse({"error": detail}, status, headers)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": PHRASES[status],
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request.scope.get("request_id"),
    }
    return JSONResponse(body | extensions, status, headers, media_type=PROBLEM_JSON)


def retry_after() -> int:
    """A random number of seconds, so that callers refused at the same time do not return at the same time."""
    return random.randint(1, MAX_RETRY_AFTER_S)  # noqa: S311


def internal_error() -> ServiceError:
    """The error for an unexpected exception, which has been logged."""
    return ServiceError("the service failed; its log has the details under the request id")


def problem_of(request: Request, error: ServiceError, **extensions: Any) -> JSONResponse:
    """The response to an error. extensions: further members of a problem."""
    headers = dict(error.headers)
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(retry_after())
    return problem(request, error.status, error.code, error.detail, headers=headers, **extensions)


def install_error_handlers(app: FastAPI) -> None:
    """Answer with problems to errors of the service, of validation and of Starlette.

    `api.middleware` logs and answers all other exceptions.
    """
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    if error.status == 500:  # the worker has logged its cause, but not the request
        log.error("the request failed: %s", error.detail)
    return problem_of(request, error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    errors: list[dict[str, Any]] = []
    for item in found[:MAX_FIELD_ERRORS]:
        if (described := describe_field_error(item)) not in errors:  # all unknown fields have the same description
            errors.append(described)
    names = ".".join(map(str, errors[0]["location"][1:]))
    detail = f"{names}: {errors[0]['message']}" if names else errors[0]["message"]
    if len(errors) > 1:
        detail += f"; `errors` lists {'all' if len(found) <= MAX_FIELD_ERRORS else 'further'} faults"
    return problem(request, 422, "invalid_request", detail, errors=errors)


def describe_field_error(item: dict[str, Any]) -> dict[str, Any]:
    """A validation error of pydantic without the input: its location and the expectation.

    For an unknown field, `ctx` has the `known` ones.
    """
    location = [part if isinstance(part, int) else str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        # The last part of the location is the unknown name, which must not be echoed.
        kind = "parameter" if location[0] == "query" else "field"
        known = ", ".join(item["ctx"]["known"])
        return {"location": location[:-1], "message": f"unknown {kind}; the {kind}s are {known}"}
    if item["type"] == "json_invalid":
        return {"location": ["body"], "message": "the body is not valid JSON"}
    return {"location": location, "message": str(item["msg"]).removeprefix("Value error, ")}


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    code, detail = STARLETTE_ERRORS.get(status, ("bad_request", PHRASES[status]))
    headers = dict(error.headers) if error.headers else {}
    if status == 405 and (route := request.scope.get("route")) is not None:
        # Starlette names only the methods of the first route of the path.
        routes = [each for each in request.app.routes if each.path == route.path]
        methods = {method for each in routes for method in each.methods}
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
        detail = f"the path supports only {headers['Allow']}"
    return problem(request, status, code, detail, headers=headers)

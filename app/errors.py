"""Everything a caller can be told went wrong, and the one form it is told in (RFC 9457).

ServiceError                  500 internal_error
├── BadRequest                400 bad_request
├── Unauthorized              401 unauthorized
├── InvalidRequest            422 invalid_request
│   ├── InvalidImage          422 invalid_image
│   └── CapabilityMissing     422 capability_missing
├── ModelNotFound             404 model_not_found
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

A detail is written for the caller and never repeats what the caller sent.
"""

import random
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

PROBLEM_JSON = "application/problem+json"
MAX_FIELD_ERRORS = 8
MAX_RETRY_AFTER_S = 3
PHRASES = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
# What Starlette itself raises: code and detail by status.
OF_STARLETTE = {
    404: ("not_found", "there is no such path; /docs lists every operation"),
    405: ("method_not_allowed", "the path has no such method; the Allow header names those it has"),
}


class ServiceError(Exception):
    """Base of all errors that have an answer. `detail` is one sentence for the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """What came is no HTTP, or could be read in two ways."""

    status = 400
    code = "bad_request"


class Unauthorized(ServiceError):
    """The service has a key, and the request has not."""

    status = 401
    code = "unauthorized"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class InvalidRequest(ServiceError):
    """The request is understood and refused."""

    status = 422
    code = "invalid_request"


class InvalidImage(InvalidRequest):
    """An upload is no image this service takes."""

    code = "invalid_image"


class CapabilityMissing(InvalidRequest):
    """The model cannot do what is asked; the detail names one that can."""

    code = "capability_missing"


class ModelNotFound(ServiceError):
    """No model has the name asked for."""

    status = 404
    code = "model_not_found"


class NotAcceptable(ServiceError):
    """No form of the answer fits the Accept header."""

    status = 406
    code = "not_acceptable"


class RequestTimeout(ServiceError):
    """The request was not whole in time."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(ServiceError):
    """The request body is over the limit. The rest of it is not waited for."""

    status = 413
    code = "body_too_large"
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class UnsupportedMediaType(ServiceError):
    """The request body is of a type this operation does not read."""

    status = 415
    code = "unsupported_media_type"


class Misdirected(ServiceError):
    """The request names a host that is not served here."""

    status = 421
    code = "misdirected_request"


class HeadersTooLarge(ServiceError):
    """More headers, or more bytes of them, than are read."""

    status = 431
    code = "headers_too_large"


class CallerGone(ServiceError):
    """The connection was closed before the answer; nobody reads this one. 499 is nginx's status for it."""

    status = 499
    code = "caller_gone"


class InferenceFailed(ServiceError):
    """The network raised or gave rows that are not finite."""

    code = "inference_failed"


class Unavailable(ServiceError):
    """Not now; the same request may pass later, after as many seconds as `retry_after` draws."""

    status = 503
    code = "unavailable"


class NotReady(Unavailable):
    """Models are still being loaded."""

    code = "not_ready"


class Overloaded(Unavailable):
    """As many requests, bytes of bodies or rows are in flight as there may be."""

    code = "overloaded"


class TooManyCallers(Unavailable):
    """There are as many connections as there may be."""

    code = "too_many_callers"


class OutOfMemory(Unavailable):
    """The device had no memory for the rows, not even in halves of a batch."""

    code = "out_of_memory"


class WorkerLost(Unavailable):
    """A thread that computes has ended or hangs; the process is about to end, for a supervisor to start another."""

    code = "worker_lost"


class Draining(Unavailable):
    """The process is about to end and takes nothing new."""

    code = "draining"


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""

    status = 504
    code = "deadline_exceeded"


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **extensions: Any,
) -> JSONResponse:
    """An `application/problem+json` answer, as RFC 9457 section 3 has it, with further members."""
    request.scope["problem_code"] = code  # for the metrics
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
    """Seconds after which to come back: drawn, so that those who were refused together do not return together."""
    return random.randint(1, MAX_RETRY_AFTER_S)  # noqa: S311


def problem_of(request: Request, error: ServiceError) -> JSONResponse:
    """The answer that an error has."""
    headers = dict(error.headers)
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(retry_after())
    return problem(request, error.status, error.code, error.detail, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Every error with an answer leaves the app as a problem, whoever raised it.

    What has none is a fault of the program: `api.middleware` logs it and answers for it.
    """
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return problem_of(request, error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return validation_problem(request, error)


def validation_problem(request: Request, error: RequestValidationError) -> JSONResponse:
    """The answer to a request without the documented form: where it has not, and never what stood there."""
    found = error.errors()
    errors = [describe_field_error(item) for item in found[:MAX_FIELD_ERRORS]]
    detail = "the request does not have the documented form"
    if len(found) > len(errors):
        detail += f"; the first {len(errors)} of {len(found)} faults are listed"
    return problem(request, 422, "invalid_request", detail, errors=errors)


def describe_field_error(item: dict[str, Any]) -> dict[str, Any]:
    """One of pydantic's errors without its input: where, and what was expected there."""
    location = [part if isinstance(part, int) else str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        # The last part is a name of the caller's own making.
        return {"location": location[:-1], "message": "a field is not known here"}
    if item["type"] == "json_invalid":
        return {"location": ["body"], "message": "the body is not valid JSON"}
    return {"location": location, "message": str(item["msg"])}


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    code, detail = OF_STARLETTE.get(status, ("bad_request", PHRASES[status]))
    headers = dict(error.headers) if error.headers else {}
    if status == 405 and (route := request.scope.get("route")) is not None:
        # Starlette names the methods of the first route of the path only.
        app: FastAPI = request.scope["app"]
        methods = {method.upper() for method in app.openapi()["paths"].get(route.path, route.methods)}
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    return problem(request, status, code, detail, headers=headers)

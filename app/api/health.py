"""`GET /livez`, `GET /readyz` and `GET /metrics`: for supervisors, load balancers and Prometheus."""

from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.responses import error_responses
from app.api.service_state import state_of
from app.errors import Overloaded, problem_of

# Query parameters are ignored: probes and scrapers add their own.
router = APIRouter(tags=["health"])

MAX_SCRAPES = 2  # in flight in all processes


class Alive(BaseModel):
    """The process responds."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The service is ready."""

    status: Literal["ready"] = "ready"
    models: list[str] = Field(examples=[["cgan", "vae"]])


@router.get("/livez", operation_id="livez", summary="Is the process alive?", responses=error_responses())
async def livez() -> Alive:
    """200 whenever the server responds, also while models are being loaded."""
    return Alive()


@router.get(
    "/readyz", operation_id="readyz", summary="Is the service ready?", response_model=Ready, responses=error_responses()
)
async def readyz(request: Request) -> JSONResponse:
    """200 once every model is loaded, checked and warm; 503 with the reasons before that and while draining."""
    readiness = state_of(request)["readiness"]
    error = readiness.error()
    if error is None:
        return JSONResponse(Ready(models=list(readiness.engine().models)).model_dump())
    return problem_of(request, error, reasons=readiness.reasons())


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=error_responses(401)
    | {200: {"content": {"text/plain": {"schema": {"type": "string", "examples": ["digits_ready 1.0"]}}}}},
)
async def metrics(request: Request) -> Response:
    """Requests, queues, batches, images, errors and the loaded models."""
    state = state_of(request)
    scrapes = state["scoreboard"].counter("scrapes")
    if scrapes.total >= MAX_SCRAPES:
        raise Overloaded("too many scrapes are in flight; retry later")
    scrapes.add(1)
    try:
        page = await state["metrics"].page()
    finally:
        scrapes.add(-1)
    return Response(page, media_type=CONTENT_TYPE_LATEST)

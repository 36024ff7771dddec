"""`GET /livez`, `GET /readyz` and `GET /metrics`: for supervisors, balancers and Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.dependencies import MetricsDep, ReadinessDep
from app.errors import Draining, NotReady, problem

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """200 as soon as the server answers at all, also while models are being loaded."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can requests be served?",
    responses={503: {"description": "not now, for the `reasons` given", "content": {"application/problem+json": {}}}},
)
async def readyz(request: Request, readiness: ReadinessDep) -> JSONResponse:
    """200 once every model is loaded, checked and warm; 503 with reasons before, and while draining."""
    reasons = readiness.reasons()
    if not reasons:
        return JSONResponse({"status": "ready", "models": list(readiness.engine().models)})
    kind = Draining if readiness.draining else NotReady
    headers = {"Retry-After": str(kind.retry_after_s)}
    return problem(request, kind.status, kind.code, "; ".join(reasons), headers=headers, reasons=reasons)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics_page(metrics: MetricsDep) -> Response:
    """Request, queue and inference time, batch sizes, images, rejections and the models that serve."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

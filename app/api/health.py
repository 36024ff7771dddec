"""`GET /livez`, `GET /readyz` and `GET /metrics`: for supervisors, balancers and Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.answers import documented
from app.api.dependencies import StateDep
from app.api.schemas import Alive, Ready
from app.errors import Draining, NotReady, problem, retry_after

# Queries are not looked at: probes and scrapers send some of their own.
router = APIRouter(tags=["health"])
# Supervisors and balancers have no key.
probes = APIRouter(tags=["health"])


@probes.get("/livez", operation_id="livez", summary="Is the process alive?", responses=documented())
async def livez() -> Alive:
    """200 as soon as the server answers at all, also while models are being loaded."""
    return Alive()


@probes.get(
    "/readyz",
    operation_id="readyz",
    summary="Can requests be served?",
    response_model=Ready,
    responses=documented(),
)
async def readyz(request: Request, state: StateDep) -> JSONResponse:
    """200 once every model is loaded, checked and warm; 503 with reasons before, and while draining."""
    readiness = state["readiness"]
    reasons = readiness.reasons()
    if not reasons:
        return JSONResponse(Ready(models=list(readiness.engine().models)).model_dump())
    kind = Draining if readiness.leaving else NotReady
    headers = {"Retry-After": str(retry_after())}
    return problem(request, kind.status, kind.code, "; ".join(reasons), headers=headers, reasons=reasons)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=documented(errors=(401,)) | {200: {"content": {"text/plain": {"example": "digits_ready 1.0"}}}},
)
async def metrics_page(state: StateDep) -> Response:
    """Request, queue and inference time, batch sizes, images, rejections and the models that serve."""
    return Response(await state["metrics_page"].content(), media_type=CONTENT_TYPE_LATEST)

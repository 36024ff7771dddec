"""The protocol over HTTP: `/v2`, with JSON, or JSON followed by binary tensors.

Source: https://github.com/kserve/open-inference-protocol, and Triton's extension of binary tensor data.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.call import Call, OperationRoute
from app.api.fields import LIMITED_BY
from app.api.negotiation import JSON
from app.api.responses import BINARY, OCTET_STREAM, documented, error_responses
from app.api.service_state import state_of
from app.open_inference.dataplane import Encoder, make_job
from app.open_inference.http_bodies import HEADER_LENGTH, answer_head, encode_answer, read_body
from app.open_inference.messages import InferenceRequest, InferenceResponse, ModelMetadata
from app.open_inference.servable import SERVER, Tensor, find_servable

router = APIRouter(tags=["inference"], route_class=OperationRoute)
# Probes must be answered in every state of the service.
health = APIRouter(tags=["health"])


class InferenceError(BaseModel):
    """An error of the protocol."""

    error: str = Field(description="how to correct the request, or when to retry", examples=["no such model"])


class ServerMetadata(BaseModel):
    """The server."""

    name: str = Field(examples=["digits"])
    version: str = Field(examples=["0.1.0"])
    extensions: list[str] = Field(examples=[["binary_tensor_data"]])


class ServerLive(BaseModel):
    """The process responds."""

    live: bool = Field(True, examples=[True])


class ServerReady(BaseModel):
    """The service is ready."""

    ready: bool = Field(True, examples=[True])


class ModelReady(BaseModel):
    """The model is ready."""

    name: str = Field(examples=["cgan.generate"])
    ready: bool = Field(True, examples=[True])


def _errors(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The documentation of responses, with errors in the form of the protocol."""
    return {
        status: response
        if int(status) < 400
        else {name: value for name, value in response.items() if name != "content"} | {"model": InferenceError}
        for status, response in responses.items()
    }


@health.get(
    "/v2/health/live", operation_id="v2_live", summary="Is the process alive?", responses=_errors(error_responses())
)
async def live() -> ServerLive:
    """200 whenever the server responds."""
    return ServerLive()


@health.get(
    "/v2/health/ready", operation_id="v2_ready", summary="Is the service ready?", responses=_errors(error_responses())
)
async def ready(request: Request) -> ServerReady:
    """As `/readyz`. Raises NotReady and Draining."""
    error = state_of(request)["readiness"].error()
    if error is not None:
        raise error
    return ServerReady()


@router.get(
    "/v2",
    operation_id="v2_server",
    summary="Describe the server",
    response_model=ServerMetadata,
    responses=_errors(error_responses(401, 406, 422)),
)
async def describe_server(call: Call) -> JSONResponse:
    """Name, version and extensions of the protocol."""
    call.negotiate_get(JSON)
    return JSONResponse(SERVER)


LOADED = ""  # the version of a request that names none
Name = Annotated[str, Path(max_length=128, description="MODEL.CAPABILITY", examples=["cgan.generate"])]
Version = Annotated[
    str, Path(max_length=64, description="the digest of the archive", examples=["f12893a7ee89" + 52 * "0"])
]
OF_MODEL = _errors(error_responses(401, 404, 406, 422))
INFER = documented(JSON, OCTET_STREAM, body=InferenceRequest)
INFER["responses"] = _errors(INFER["responses"])
INFER["responses"][200]["headers"] |= {
    HEADER_LENGTH: {"description": "bytes of the JSON, before those of binary tensors", "schema": {"type": "integer"}}
}
INFER["openapi_extra"]["requestBody"]["content"][OCTET_STREAM] = {
    "schema": BINARY | {"description": "JSON, then binary tensors", LIMITED_BY: "max_upload_bytes"}
}
INFER["openapi_extra"]["parameters"].append(
    {
        "name": HEADER_LENGTH,
        "in": "header",
        "required": False,
        "description": "bytes of the JSON, before those of binary tensors; default: the whole body is JSON",
        "schema": {"type": "integer", "minimum": 0, "examples": [180]},
    }
)


@router.get(
    "/v2/models/{name}",
    operation_id="v2_model",
    summary="Describe a model",
    response_model=ModelMetadata,
    responses=OF_MODEL,
)
async def describe_model(call: Call, name: Name) -> JSONResponse:
    """The inputs that the model needs, and its outputs."""
    return await describe_model_version(call, name, LOADED)


@router.get(
    "/v2/models/{name}/versions/{version}",
    operation_id="v2_model_version",
    summary="Describe a version of a model",
    response_model=ModelMetadata,
    responses=OF_MODEL,
)
async def describe_model_version(call: Call, name: Name, version: Version) -> JSONResponse:
    """As without a version; 404 unless it is loaded."""
    call.negotiate_get(JSON)
    return JSONResponse(find_servable(call.engine, name, version).metadata.model_dump())


@router.get(
    "/v2/models/{name}/ready",
    operation_id="v2_model_ready",
    summary="Is a model ready?",
    response_model=ModelReady,
    responses=OF_MODEL,
)
async def model_ready(call: Call, name: Name) -> JSONResponse:
    """200 if the model is loaded."""
    return await model_version_ready(call, name, LOADED)


@router.get(
    "/v2/models/{name}/versions/{version}/ready",
    operation_id="v2_model_version_ready",
    summary="Is a version of a model ready?",
    response_model=ModelReady,
    responses=OF_MODEL,
)
async def model_version_ready(call: Call, name: Name, version: Version) -> JSONResponse:
    """200 if this version of the model is loaded."""
    call.negotiate_get(JSON)
    return JSONResponse(ModelReady(name=find_servable(call.engine, name, version).name).model_dump())


@router.post(
    "/v2/models/{name}/infer",
    operation_id="v2_infer",
    summary="Run a model on tensors",
    response_model=InferenceResponse,
    **INFER,
)
async def infer(call: Call, name: Name) -> Response:
    """JSON, or JSON followed by binary tensors, with the length of the JSON in `Inference-Header-Content-Length`.

    In the response, binary tensors follow the JSON if outputs are requested as binary.
    """
    return await infer_version(call, name, LOADED)


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    operation_id="v2_infer_version",
    summary="Run a version of a model on tensors",
    response_model=InferenceResponse,
    **INFER,
)
async def infer_version(call: Call, name: Name, version: Version) -> Response:
    """As without a version; 404 unless it is loaded."""
    call.refuse_query()
    _check_body_type(call)
    content = await call.read_body(call.settings.max_upload_bytes)
    servable = find_servable(call.engine, name, version)
    request, contents = read_body(content, call.header_values(HEADER_LENGTH.lower().encode()))
    default = bool(request.parameters.binary_data_output)
    chosen = {
        output.name: default if output.parameters.binary_data is None else output.parameters.binary_data
        for output in request.outputs
    }
    binary_size = 0

    def make_encoder(outputs: Sequence[Tensor], rows: int, seed: int | None) -> Encoder:
        nonlocal binary_size
        binary = [chosen.get(tensor.name, default) for tensor in outputs]
        binary_size = sum(tensor.bytes_of(rows) for tensor, each in zip(outputs, binary, strict=True) if each)
        return partial(encode_answer, answer_head(servable, request, seed), outputs, binary)

    job = make_job(servable, request, contents, call.settings, make_encoder)
    media_type = call.negotiate(OCTET_STREAM if binary_size else JSON)
    answer = await call.answer(servable.model, job, media_type, job.seed)
    if binary_size:
        answer.headers[HEADER_LENGTH] = str(len(answer.body) - binary_size)
    return answer


def _check_body_type(call: Call) -> None:
    """Refuse other media types. Triton's client sends none, or that of the binary form with JSON."""
    if call.header_values(b"content-type"):
        call.media_type(JSON, OCTET_STREAM)
    else:
        call.refuse_compression()

"""KServe's clients."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import kserve
import numpy as np
from kserve import InferInput, InferRequest, RESTConfig

from tests.integration.clients.questions import LABELS, MODEL, SCORER, SEEDED, TOO_NARROW, Answers


def kserve_rest(address: str, *, binary: bool) -> Answers:
    """KServe's REST client."""

    async def ask() -> Answers:
        url = f"http://{address}"
        async with kserve.InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            assert await client.is_server_live(url)
            assert await client.is_server_ready(url)
            assert await client.is_model_ready(url, MODEL)
            return await _kserve(lambda request: client.infer(url, request, request.model_name), binary)

    return asyncio.run(ask())


def kserve_grpc(address: str) -> Answers:
    """KServe's gRPC client."""

    async def ask() -> Answers:
        async with kserve.InferenceGRPCClient(address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(MODEL)
            return await _kserve(client.infer, binary=True)

    return asyncio.run(ask())


async def _kserve(infer: Callable[[InferRequest], Awaitable[Any]], binary: bool) -> Answers:
    def request(model: str, parameters: dict[str, Any], **arrays: Any) -> InferRequest:
        inputs = []
        for name, array in arrays.items():
            datatype = {np.dtype(np.int64): "INT64", np.dtype(np.uint8): "UINT8"}.get(array.dtype, "FP32")
            tensor = InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array, binary_data=binary)
            inputs.append(tensor)
        options = {"binary_data_output": True} if binary else {}
        return InferRequest(model, inputs, request_id="42", parameters=parameters | options)

    drawn = await infer(request(MODEL, SEEDED, label=LABELS))
    arrays = {output.name: output.as_numpy() for output in drawn.outputs}
    scored = await infer(request(SCORER, {}, image=arrays["image"], label=LABELS))
    try:
        await infer(request(MODEL, {}, latent=TOO_NARROW))
        error = ""
    except Exception as refused:
        error = str(refused)
    return {
        "server": "digits",
        "model": drawn.model_name,
        "id": drawn.id,
        **arrays,
        "logit": scored.outputs[0].as_numpy(),
        "error": error,
    }


CLIENTS = {
    "kserve-json": lambda http, _: kserve_rest(http, binary=False),
    "kserve-binary": lambda http, _: kserve_rest(http, binary=True),
    "kserve-grpc": lambda _, grpc: kserve_grpc(grpc),
}

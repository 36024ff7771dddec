"""NVIDIA's tritonclient."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.integration.clients.questions import LABELS, MODEL, SCORER, SEEDED, TOO_NARROW, Answers


def triton(address: str, module: Any, *, binary: bool | None) -> Answers:
    """The synchronous client. binary: whether tensors are; None over gRPC."""
    client = module.InferenceServerClient(address)
    try:
        return asyncio.run(_triton(client, module, binary))
    finally:
        client.close()


def triton_aio(address: str, module: Any, types: Any, *, binary: bool | None) -> Answers:
    """The asynchronous client."""

    async def ask() -> Answers:
        async with module.InferenceServerClient(address) as client:
            return await _triton(client, types, binary)

    return asyncio.run(ask())


async def _now(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


async def _triton(client: Any, types: Any, binary: bool | None) -> Answers:
    options = {} if binary is None else {"binary_data": binary}

    def tensor(name: str, datatype: str, array: Any) -> Any:
        made = types.InferInput(name, array.shape, datatype)
        made.set_data_from_numpy(array, **options)
        return made

    def wanted(*names: str) -> Any:
        return [types.InferRequestedOutput(name, **options) for name in names]

    assert await _now(client.is_server_live())
    assert await _now(client.is_server_ready())
    assert await _now(client.is_model_ready(MODEL))
    server = await _now(client.get_server_metadata())
    metadata = await _now(client.get_model_metadata(MODEL))
    fields = metadata if isinstance(metadata, dict) else {"versions": list(metadata.versions), "name": metadata.name}
    label = tensor("label", "INT64", LABELS)
    drawn = await _now(
        client.infer(MODEL, [label], fields["versions"][0], wanted("image", "label"), "42", parameters=SEEDED)
    )
    images = drawn.as_numpy("image")
    everything = await _now(client.infer(MODEL, [label], parameters=SEEDED))
    assert np.array_equal(everything.as_numpy("image"), images)
    scored = await _now(client.infer(SCORER, [tensor("image", "UINT8", images), label], outputs=wanted("logit")))
    floats = (images / np.float32(255)).astype(np.float32)
    same = await _now(client.infer(SCORER, [tensor("image", "FP32", floats), label], outputs=wanted("logit")))
    assert np.array_equal(same.as_numpy("logit"), scored.as_numpy("logit"))
    try:
        await _now(client.infer(MODEL, [tensor("latent", "FP32", TOO_NARROW)]))
        error = ""
    except InferenceServerException as refused:
        error = refused.message()
    response = drawn.get_response()
    return {
        "server": server["name"] if isinstance(server, dict) else server.name,
        "model": fields["name"],
        "id": response["id"] if isinstance(response, dict) else response.id,
        "image": images,
        "label": drawn.as_numpy("label"),
        "logit": scored.as_numpy("logit"),
        "error": error,
    }


CLIENTS = {
    "triton-http-json": lambda http, _: triton(http, tritonclient.http, binary=False),
    "triton-http-binary": lambda http, _: triton(http, tritonclient.http, binary=True),
    "triton-aio-json": lambda http, _: triton_aio(http, tritonclient.http.aio, tritonclient.http, binary=False),
    "triton-aio-binary": lambda http, _: triton_aio(http, tritonclient.http.aio, tritonclient.http, binary=True),
    "triton-grpc": lambda _, grpc: triton(grpc, tritonclient.grpc, binary=None),
    "triton-grpc-aio": lambda _, grpc: triton_aio(grpc, tritonclient.grpc.aio, tritonclient.grpc, binary=None),
}

"""The bodies of requests and responses over HTTP: JSON, followed by binary tensors."""

import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from app.api.call import unique_fields
from app.api.responses import to_json
from app.errors import InvalidRequest
from app.open_inference.messages import InferenceRequest, read_request
from app.open_inference.servable import Servable, Tensor
from app.open_inference.tensors import to_bytes

HEADER_LENGTH = "Inference-Header-Content-Length"
# Of the JSON of a request, which is parsed on the event loop: 256 images of 8-bit integers, or 40 of decimal fractions.
MAX_JSON_BYTES = 2**20


def answer_head(servable: Servable, request: InferenceRequest, seed: int | None) -> dict[str, Any]:
    """The fields of a response besides its outputs."""
    return {
        "model_name": servable.name,
        "model_version": servable.version,
        **({} if request.id is None else {"id": request.id}),
        "parameters": servable.origin(seed),
    }


def encode_answer(
    head: dict[str, Any], outputs: Sequence[Tensor], binary: Sequence[bool], arrays: Sequence[NDArray[Any]]
) -> bytes:
    """The body of a response: JSON, then the binary outputs."""
    items: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for tensor, is_binary, array in zip(outputs, binary, arrays, strict=True):
        item: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if is_binary:
            behind.append(to_bytes(array, tensor.datatype))
            items.append(item | {"parameters": {"binary_data_size": len(behind[-1])}})
        else:
            items.append(item | {"data": array.ravel().tolist()})
    return b"".join([to_json(head | {"outputs": items}).encode(), *behind])


def read_body(content: bytes, header_length: Sequence[str]) -> tuple[InferenceRequest, list[bytes | None]]:
    """The request, and for each input its bytes, None if it has numbers. Raises InvalidRequest."""
    length = len(content)
    if header_length:
        if len(header_length) > 1 or not header_length[0].isdecimal() or len(header_length[0]) > 15:
            raise InvalidRequest(f"{HEADER_LENGTH} is one number of bytes")
        length = int(header_length[0])
        if length > len(content):
            raise InvalidRequest(f"{HEADER_LENGTH} is more than the bytes of the body")
    if length > MAX_JSON_BYTES:
        raise InvalidRequest(f"JSON is limited to {MAX_JSON_BYTES} bytes; send tensors as binary")
    request = read_request(_json(content[:length]))
    contents: list[bytes | None] = []
    start = length
    for tensor in request.inputs:
        size = tensor.parameters.binary_data_size
        if size is not None and tensor.data is not None:
            raise InvalidRequest("an input has data or binary_data_size, not both")
        contents.append(None if size is None else content[start : start + size])
        start += size or 0
    if start != len(content):
        raise InvalidRequest(
            f"behind the JSON of {length} bytes, {start - length} bytes of tensors were announced, and "
            f"{len(content) - length} were sent"
        )
    return request, contents


def _json(content: bytes) -> object:
    """Parsed JSON. Raises InvalidRequest for what is not JSON in UTF-8, and for a name twice in an object."""
    try:
        return json.loads(content.decode(), object_pairs_hook=unique_fields, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not valid JSON, or not UTF-8") from None


def _refuse_constant(_: str) -> None:
    raise InvalidRequest("NaN and infinities are not JSON; no tensor here has them")

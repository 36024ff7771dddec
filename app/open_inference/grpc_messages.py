"""The messages of gRPC: their classes, and the fields and contents of a request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles

from app.errors import InvalidRequest
from app.open_inference.messages import MAX_RANK, MAX_TENSORS

MAX_PARAMETERS = 16
# By datatype, the field of a tensor's contents.
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "UINT8": "uint_contents"}


def load_messages() -> dict[str, Any]:
    """The message classes, in a separate pool: clients in the same process have classes of the same names."""
    (file,) = FileDescriptorSet.FromString(Path(__file__).with_name("open_inference.desc").read_bytes()).file
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name.removeprefix(f"{file.package}."): made
        for name, made in GetMessageClassesForFiles([file.name], pool).items()
    }


def fields_of(request: Any) -> dict[str, Any]:
    """The fields of a request without the contents of its tensors. Too many are cut to one more than the limit."""
    return {
        "id": request.id or None,
        "parameters": _values(request.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape[: MAX_RANK + 1],
                "parameters": _values(tensor.parameters),
            }
            for tensor in request.inputs[: MAX_TENSORS + 1]
        ],
        "outputs": [
            {"name": output.name, "parameters": _values(output.parameters)}
            for output in request.outputs[: MAX_TENSORS + 1]
        ],
    }


def _values(parameters: Any) -> dict[str, Any]:
    """Parameters by name."""
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidRequest(f"there are at most {MAX_PARAMETERS} parameters")
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: choice and getattr(parameters[name], choice) for name, choice in chosen.items()}


def contents_of(request: Any) -> list[bytes | Sequence[Any]]:
    """The bytes or the numbers of each input. Raises InvalidRequest if raw contents are not those of all inputs."""
    if not request.raw_input_contents:
        return [getattr(tensor.contents, CONTENTS.get(tensor.datatype, "bytes_contents")) for tensor in request.inputs]
    if len(request.raw_input_contents) != len(request.inputs):
        raise InvalidRequest("raw_input_contents must have one item for each input")
    return [*request.raw_input_contents]

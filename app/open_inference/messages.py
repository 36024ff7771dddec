"""The messages of the protocol, shared by HTTP and gRPC. All input is strict."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.fields import Body, First, ImageCount, PriorName, Seed, Temperature, Truncation
from app.errors import InvalidRequest, describe_field_error

MAX_TENSORS = 16  # of a request; no model has as many
MAX_RANK = 8
MAX_NAME = 64
MAX_ID = 256

TensorName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
ByteCount = Annotated[int, Field(ge=0, le=2**40)]


class InferenceParameters(Body):
    """Parameters of a request: how latents are drawn, instead of the input `latent`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seed": 8, "n": 16}]})

    seed: Seed | None = Field(None, description="of the latents", examples=[8])
    first: First | None = Field(None, description="index of the first image of the seed; default 0", examples=[0])
    n: ImageCount | None = Field(
        None, description="number of images of the seed; default: the rows of the input `label`, else 1", examples=[16]
    )
    prior: PriorName = None
    temperature: Temperature = None
    truncation: Truncation = None
    binary_data_output: bool | None = Field(
        None, description="HTTP: whether outputs are binary by default", examples=[True]
    )

    @property
    def sampling(self) -> list[str]:
        """The names of the given parameters that control how latents are drawn."""
        return sorted(self.model_fields_set - {"binary_data_output"})


class InputParameters(Body):
    """Parameters of an input."""

    binary_data_size: ByteCount | None = Field(
        None, description="HTTP: bytes of the tensor behind the JSON", examples=[784]
    )


class OutputParameters(Body):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(None, description="HTTP: whether the output is binary", examples=[True])


class InputTensor(Body):
    """An input."""

    name: TensorName = Field(examples=["label"])
    datatype: str = Field(max_length=MAX_NAME, examples=["INT64"])
    shape: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(max_length=MAX_RANK, examples=[[2]])
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(
        None, description="numbers, flat or nested as `shape`, unless they are binary", examples=[[3, 8]]
    )


class RequestedOutput(Body):
    """An output that the caller wants."""

    name: TensorName = Field(examples=["image"])
    parameters: OutputParameters = OutputParameters()


class InferenceRequest(Body):
    """A request to a model."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "parameters": {"seed": 8},
                    "inputs": [{"name": "label", "datatype": "INT64", "shape": [2], "data": [3, 8]}],
                    "outputs": [{"name": "image"}],
                }
            ]
        },
    )

    id: str | None = Field(None, max_length=MAX_ID, description="returned in the response", examples=["42"])
    model_name: str | None = Field(
        None, max_length=2 * MAX_NAME, description="as in the path, if it is given", examples=["cgan.generate"]
    )
    parameters: InferenceParameters = Field(InferenceParameters(), description="how latents are drawn")
    inputs: list[InputTensor] = Field(
        [],
        max_length=MAX_TENSORS,
        description="the input tensors, with the same number of rows",
        examples=[[{"name": "label", "datatype": "INT64", "shape": [2], "data": [3, 8]}]],
    )
    outputs: list[RequestedOutput] = Field(
        [], max_length=MAX_TENSORS, description="the outputs wanted; default: all", examples=[[{"name": "image"}]]
    )


class TensorMetadata(BaseModel):
    """Name, datatype and shape of a tensor."""

    name: str = Field(examples=["image"])
    datatype: str = Field(examples=["UINT8"])
    shape: list[int] = Field(description="-1: any number of rows", examples=[[-1, 28, 28]])


class ModelMetadata(BaseModel):
    """A model, with its tensors."""

    name: str = Field(examples=["cgan.generate"])
    versions: list[str] = Field(description="the digest of the archive")
    platform: str = Field(examples=["pytorch_torchscript"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """An output."""

    name: str = Field(examples=["label"])
    datatype: str = Field(examples=["INT64"])
    shape: list[int] = Field(examples=[[2]])
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`: bytes of the tensor behind the JSON"
    )
    data: list[float] | None = Field(None, description="flat, unless it is binary", examples=[[3, 8]])


class InferenceResponse(BaseModel):
    """The outputs of a model."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str = Field(examples=["cgan.generate"])
    model_version: str = Field(description="the digest of the archive")
    id: str | None = Field(None, description="of the request, if it had one", examples=["42"])
    parameters: dict[str, int | str] = Field(description="`precision`, `runtime`, and the `seed` that was used")
    outputs: list[OutputTensor]


# By location, without indices: the class of the objects there.
_CLASSES: dict[tuple[str, ...], type[BaseModel]] = {
    (): InferenceRequest,
    ("parameters",): InferenceParameters,
    ("inputs",): InputTensor,
    ("inputs", "parameters"): InputParameters,
    ("outputs",): RequestedOutput,
    ("outputs", "parameters"): OutputParameters,
}


def read_request(fields: object) -> InferenceRequest:
    """The request with these fields. Raises InvalidRequest, which describes the first fault."""
    try:
        return InferenceRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        location = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        known = _CLASSES.get(tuple(part for part in location if isinstance(part, str)), InferenceRequest)
        item = {**first, "loc": ("body", *first["loc"]), "ctx": {"known": list(known.model_fields)}}
        names = ".".join(map(str, location))
        message = describe_field_error(item)["message"]
        raise InvalidRequest(f"{names}: {message}" if names else message) from None

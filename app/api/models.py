"""`GET /models`, `GET /models/{name}`, and the pictures and the history below it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from app.api.call import Call, OperationRoute
from app.api.negotiation import JSON, PNG, matches
from app.api.responses import BINARY, DESCRIPTIONS, IF_NONE_MATCH_PARAMETER, OCTET_STREAM, error_responses
from app.checkpoints.manifest import Control, ImageForm, Precision, Prior, PublicManifest
from app.checkpoints.pictures import History, PictureName
from app.errors import ModelNotFound, NotShipped
from app.inference.model import Model

router = APIRouter(tags=["models"], route_class=OperationRoute)

Name = Annotated[str, Path(max_length=64, description="name of a loaded model", examples=["cgan"])]
Picture = Annotated[PictureName, Path(description="a picture that the checkpoint ships", examples=["samples"])]
PICTURE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        # Callers may accept either; client generators support only the second.
        "content": {media_type: {"schema": BINARY} for media_type in (PNG, OCTET_STREAM)},
        "headers": {
            "ETag": {
                "description": "SHA-256 of the picture",
                "schema": {"type": "string", "examples": [f'"{64 * "0"}"']},
            }
        },
    },
    304: {"description": DESCRIPTIONS[304]},
}
PICTURES = "pictures that the checkpoint ships, at `/models/{name}/pictures/{picture}`"
ROW_MS = "CPU time of a row of a full batch in milliseconds, measured at the start"


class ModelSummary(BaseModel):
    """A model in the list."""

    name: str = Field(examples=["cgan"])
    family: str = Field(examples=["cgan"])
    capabilities: list[str] = Field(examples=[["generate", "discriminate"]])
    digest: str
    precision: Precision
    latent_dim: int | None
    conditional: bool = Field(description="whether the networks take labels, also those of uploads")
    priors: list[Prior] = Field(description="distributions of latents; the first is the default")
    sampling: list[Control] = Field(description="sampling controls that the model supports")
    smooth_latents: bool = Field(
        description="whether images change gradually with their latents, so that interpolating makes sense"
    )
    sequential: bool = Field(description="whether a pass has hundreds of steps and takes long")
    row_ms: dict[str, float] = Field(description=f"by capability: {ROW_MS}", examples=[{"generate": 0.41}])
    image: ImageForm = Field(description="images that the model makes, or takes if it makes none")
    input_image: ImageForm | None = Field(description="images that the model takes; null: the same form")
    classes: list[str] = Field(description="class names, for a conditional model or a fitted prior")
    pictures: list[PictureName] = Field(description=PICTURES)
    history: bool = Field(description="whether `/models/{name}/history` has the epochs of the training")


class ModelList(BaseModel):
    """All loaded models."""

    default: str | None = Field(description="the configured default; null: the first model that supports the request")
    models: list[ModelSummary]


class RuntimeFacts(BaseModel):
    """The id of the runtime and the facts it is a hash of."""

    id: str
    facts: dict[str, str]


class Guarantee(BaseModel):
    """What the checks at the start found for one capability."""

    byte_identical: bool = Field(description="a row has the same bits alone, in batches of several sizes and full ones")
    row_multiple: int = Field(description="batches are padded to a multiple of this number of rows")
    row_ms: float = Field(description=ROW_MS)


class ModelDetail(BaseModel):
    """A model with its manifest and its card."""

    name: str = Field(examples=["cgan"])
    digest: str
    precision: Precision
    runtime: RuntimeFacts
    guarantees: dict[str, Guarantee]
    manifest: PublicManifest
    card: str | None = Field(description="Markdown")
    pictures: list[PictureName] = Field(description=PICTURES)


@router.get(
    "/models",
    operation_id="list_models",
    summary="List the loaded models",
    response_model=ModelList,
    responses=error_responses(401, 406, 422),
)
async def list_models(call: Call) -> JSONResponse:
    """Models by name."""
    call.negotiate_get(JSON)
    summaries = [
        model.manifest.model_dump(mode="json", include=set(ModelSummary.model_fields))
        | {
            "digest": model.provenance.digest,
            "precision": model.provenance.precision,
            "pictures": list(model.pictures),
            "history": model.history is not None,
            "row_ms": {capability: round(network.row_ms, 4) for capability, network in model.networks.items()},
        }
        for model in call.engine.models.values()
    ]
    return JSONResponse(ModelList(default=call.settings.default_model, models=summaries).model_dump(mode="json"))


@router.get(
    "/models/{name}",
    operation_id="describe_model",
    summary="Show the manifest and the card of a model",
    response_model=ModelDetail,
    responses=error_responses(401, 404, 406, 422),
)
async def describe_model(call: Call, name: Name) -> JSONResponse:
    """The origin of the weights, their measured quality and its protocol."""
    call.negotiate_get(JSON)
    model = _model(call, name)
    detail = ModelDetail(
        name=model.name,
        digest=model.provenance.digest,
        precision=model.provenance.precision,
        runtime=RuntimeFacts(id=model.provenance.runtime, facts=dict(model.facts)),
        guarantees={
            capability: Guarantee(
                byte_identical=model.byte_identical[capability],
                row_multiple=network.row_multiple,
                row_ms=round(network.row_ms, 4),
            )
            for capability, network in model.networks.items()
        },
        manifest=model.manifest,
        card=model.card,
        pictures=list(model.pictures),
    )
    return JSONResponse(detail.model_dump(mode="json"))


@router.get(
    "/models/{name}/history",
    operation_id="model_history",
    summary="Show the losses and figures of each epoch of the training",
    response_model=History,
    responses=error_responses(401, 404, 406, 422),
)
async def model_history(call: Call, name: Name) -> JSONResponse:
    """The epochs of the run that made the weights."""
    call.negotiate_get(JSON)
    history = _model(call, name).history
    if history is None:
        raise NotShipped("the checkpoint of this model has no history")
    return JSONResponse(history.model_dump(mode="json"))


@router.get(
    "/models/{name}/pictures/{picture}",
    operation_id="model_picture",
    summary="Get a picture that a checkpoint ships",
    response_class=Response,
    responses=PICTURE_RESPONSES | error_responses(401, 404, 406, 422),
    openapi_extra={"parameters": [IF_NONE_MATCH_PARAMETER]},
)
async def model_picture(call: Call, name: Name, picture: Picture) -> Response:
    """Those of the card (samples, reconstructions, ...), the test images of `examples`, and the epochs of `film`."""
    media_type = call.negotiate_get(PNG, OCTET_STREAM)
    model = _model(call, name)
    shipped = model.pictures.get(picture)
    if shipped is None:
        have = f"it has {', '.join(model.pictures)}" if model.pictures else "it has none"
        raise NotShipped(f"the checkpoint of this model has no such picture; {have}")
    # Another export has other pictures under the same path, so copies are revalidated each time.
    headers = {"ETag": f'"{shipped.digest}"', "Cache-Control": "private, no-cache", "Vary": "Accept"}
    if matches(",".join(call.header_values(b"if-none-match")), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(shipped.content, media_type=media_type, headers=headers)


def _model(call: Call, name: str) -> Model:
    model = call.engine.models.get(name)
    if model is None:
        raise ModelNotFound(f"no such model; the loaded models are {', '.join(call.engine.models)}")
    return model

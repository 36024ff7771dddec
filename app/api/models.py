"""`GET /models` and `GET /models/{name}`."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from app.api.call import Call, OperationRoute
from app.api.negotiation import JSON
from app.api.responses import error_responses
from app.checkpoints.manifest import Control, ImageForm, Precision, Prior, PublicManifest
from app.errors import InvalidRequest, ModelNotFound

router = APIRouter(tags=["models"], route_class=OperationRoute)


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
    image: ImageForm = Field(description="images that the model makes, or takes if it makes none")
    input_image: ImageForm | None = Field(description="images that the model takes; null: the same form")
    classes: list[str] = Field(description="class names, for a conditional model or a fitted prior")


class ModelList(BaseModel):
    """All loaded models."""

    default: str | None = Field(description="the configured default; null: the first model that can do what is asked")
    models: list[ModelSummary]


class RuntimeFacts(BaseModel):
    """The id of the runtime and the facts it is a hash of."""

    id: str
    facts: dict[str, str]


class Guarantee(BaseModel):
    """What the checks at the start found for one capability."""

    byte_identical: bool = Field(description="a row has the same bits alone, in batches of several sizes and full ones")
    row_multiple: int = Field(description="batches are padded to a multiple of this number of rows")
    row_ms: float = Field(description="CPU time of a row of a full batch in milliseconds, measured at the start")


class ModelDetail(BaseModel):
    """A model with its manifest and its card."""

    name: str = Field(examples=["cgan"])
    digest: str
    precision: Precision
    runtime: RuntimeFacts
    guarantees: dict[str, Guarantee]
    manifest: PublicManifest
    card: str | None = Field(description="Markdown")


@router.get(
    "/models",
    operation_id="list_models",
    summary="List the loaded models",
    response_model=ModelList,
    responses=error_responses(401, 406, 422),
)
async def list_models(call: Call) -> JSONResponse:
    """Models by name."""
    _check(call)
    summaries = [
        model.manifest.model_dump(mode="json", include=set(ModelSummary.model_fields))
        | {"digest": model.provenance.digest, "precision": model.provenance.precision}
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
async def describe_model(
    call: Call, name: Annotated[str, Path(max_length=64, description="name of a loaded model", examples=["cgan"])]
) -> JSONResponse:
    """The origin of the weights, their measured quality and its protocol."""
    _check(call)
    model = call.engine.models.get(name)
    if model is None:
        raise ModelNotFound(f"no such model; the loaded models are {', '.join(call.engine.models)}")
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
    )
    return JSONResponse(detail.model_dump(mode="json"))


def _check(call: Call) -> None:
    call.negotiate(JSON)
    if call.scope["query_string"]:
        raise InvalidRequest("this path has no query parameters")

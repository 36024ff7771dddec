"""`GET /models` and `GET /models/{name}`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.api.answers import documented
from app.api.bodies import refuse_any_query
from app.api.dependencies import EngineDep, StateDep
from app.api.negotiation import JSON, accepts
from app.api.schemas import Guarantee, ModelDetail, ModelList, ModelSummary, RuntimeFacts
from app.errors import ModelNotFound

router = APIRouter(tags=["models"], dependencies=[Depends(accepts(JSON)), Depends(refuse_any_query)])


@router.get(
    "/models",
    operation_id="list_models",
    summary="List the loaded models",
    responses=documented(errors=(401, 406, 422)),
)
async def list_models(engine: EngineDep, state: StateDep) -> ModelList:
    """In order of name, which is also the order in which a capable one is chosen."""
    summaries = [
        ModelSummary(
            name=model.name,
            family=model.manifest.family,
            capabilities=list(model.manifest.capabilities),
            digest=model.digest,
            precision=model.precision,
            latent_dim=model.manifest.latent_dim,
            conditional=model.manifest.conditional,
            priors=list(model.manifest.priors),
            sampling=list(model.manifest.sampling),
            image=model.manifest.image,
            classes=list(model.manifest.classes),
        )
        for model in engine.models.values()
    ]
    return ModelList(default=state["settings"].default_model, models=summaries)


@router.get(
    "/models/{name}",
    operation_id="describe_model",
    summary="Show a model's manifest and card",
    responses=documented(errors=(401, 404, 406, 422)),
)
async def describe_model(engine: EngineDep, name: Annotated[str, Path(max_length=64, examples=["vae"])]) -> ModelDetail:
    """Where the weights come from, how good they are and under which protocol that was measured."""
    if name not in engine.models:
        raise ModelNotFound(f"no such model; there are: {', '.join(engine.models)}")
    model = engine.models[name]
    return ModelDetail(
        name=model.name,
        digest=model.digest,
        precision=model.precision,
        runtime=RuntimeFacts(id=model.runtime_id, facts=dict(model.facts)),
        guarantees={
            capability: Guarantee(byte_identical=model.identical[capability], row_multiple=network.row_multiple)
            for capability, network in model.networks.items()
        },
        manifest=model.manifest.model_dump(mode="json", exclude={"golden"}),
        card=model.card,
    )

"""`POST /reconstruct`."""

from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import BODY_ERRORS, base64_png, check_count, documented, off_loop, picture, respond
from app.api.bodies import MULTIPART, read_files, refuse_repeated_names, request_body, require_media_type
from app.api.dependencies import EngineDep, StateDep, while_connected
from app.api.negotiation import JSON, NPZ, PNG, accepts
from app.api.requests import ReconstructQuery
from app.api.schemas import LatentParameters, Png, ReconstructAnswer, ReconstructionErrors
from app.api.uploads import read_images
from app.images import encode

router = APIRouter(tags=["images"], dependencies=[Depends(refuse_repeated_names)])


@router.post(
    "/reconstruct",
    operation_id="reconstruct",
    summary="Encode an uploaded image and decode it again",
    response_model=ReconstructAnswer,
    responses=documented(PNG, NPZ, errors=BODY_ERRORS),
    openapi_extra=request_body(files="file"),
)
async def reconstruct(
    request: Request,
    engine: EngineDep,
    form: Annotated[str, Depends(accepts(JSON, PNG, NPZ))],
    asked: Annotated[ReconstructQuery, Query()],
    state: StateDep,
) -> Response:
    """Any PNG or JPEG of a digit: dark on light or light on dark, a drawing or a photo.

    `input` is the image as the model saw it. `image/png` is input and reconstruction side by side;
    `application/x-npz` holds both (uint8) with `mean` and `log_variance` (float32).
    """
    settings, workers = state["settings"], state["image_workers"]
    require_media_type(request, MULTIPART)
    model = engine.select(asked.model, "encode", "decode")
    check_count(2, asked.scale, model.manifest.image.pixels, settings)
    files = await read_files(request, "file", 1)
    rows = await read_images(files, model.manifest.image, workers, settings, normalized=asked.normalize)
    result = await while_connected(request, engine.reconstruct(model, rows[0], asked.seed))
    state["metrics"].images.labels(model.name, "reconstruct").inc()
    pair = encode.to_uint8(np.stack([result.image, result.reconstruction]))
    if form == JSON:
        first, second = await off_loop(
            lambda: [base64_png(image, asked.scale) for image in pair], pair.size * asked.scale**2, workers
        )
        answer = ReconstructAnswer(
            **asdict(result.provenance),
            seed=asked.seed,
            input=Png(png=first),
            reconstruction=Png(png=second),
            latent=LatentParameters(mean=result.mean.tolist(), log_variance=result.log_variance.tolist()),
            errors=ReconstructionErrors(bce=result.bce, mse=result.mse, kl=result.kl),
        )
        content = answer.model_dump_json().encode()
    elif form == PNG:
        content = await picture(pair, PNG, asked.scale, workers, columns=2)
    else:
        content = await off_loop(
            lambda: encode.npz(
                input=pair[0], reconstruction=pair[1], mean=result.mean, log_variance=result.log_variance
            ),
            pair.size,
            workers,
        )
    return respond(content, form, result.provenance, asked.seed)

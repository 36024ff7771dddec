"""A new operation is one file and, for a new capability, one row of the table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import app.operations
from app.checkpoints.capabilities import CAPABILITIES, Capability, Symbol
from app.checkpoints.manifest import TensorRecord
from tests.api.reading import image, png_file, problem_of
from tests.conftest import serving
from tests.tiny_models import edited, write

OPERATION = '''
"""`POST /invert`: an uploaded image through the capability `invert`."""

from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from app.api.call import IMAGE_TYPES, Call, OperationRoute
from app.api.negotiation import PNG
from app.api.responses import documented
from app.images import encode
from app.inference.batching import Job
from app.inference.runtime import Rows

router = APIRouter(route_class=OperationRoute)


@dataclass(frozen=True, slots=True)
class InvertJob(Job[Rows]):
    operation = "invert"
    rows = 1

    image: Rows

    @classmethod
    def compute(cls, model, chunks):
        (inverted,) = model.run("invert", np.concatenate([chunk.job.image for chunk in chunks]))
        return list(inverted)

    def answer(self, parts):
        return encode.png(encode.to_uint8(parts[0][0]))


@router.post("/invert", operation_id="invert", summary="Invert an image", **documented(PNG, image_body=True))
async def invert(call: Call) -> Response:
    call.negotiate(PNG)
    body_type = call.media_type(*IMAGE_TYPES)
    model, _ = call.engine.select(None, lambda model: model.require("invert"))
    image, _ = await call.read_images(body_type, "file", 1, model.manifest.upload_form, normalized=False)
    return await call.answer(model, InvertJob(image), PNG, None)
'''


class Inverter(nn.Module):
    """16x16 images to their negatives of 32x32."""

    @torch.jit.export
    def invert(self, images: Tensor) -> Tensor:
        return nn.functional.interpolate(1 - images, scale_factor=2.0)


def write_inverter(models: Path) -> Path:
    """Write a checkpoint of the inverter; its folder."""
    return write(models, "inverter", Inverter(), side=32, input_side=16)


@pytest.fixture
def new_operation(tmp_path, monkeypatch):
    """The file in a folder on the path of the package, and the row in the table; the folder for models."""
    (tmp_path / "operations").mkdir()
    (tmp_path / "operations" / "invert.py").write_text(OPERATION)
    monkeypatch.setattr(app.operations, "__path__", [*app.operations.__path__, str(tmp_path / "operations")])
    row = Capability((Symbol.INPUT_IMAGE,), (Symbol.IMAGE,), 1e-4, labels="never", low_precision=True)
    monkeypatch.setitem(CAPABILITIES, "invert", row)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_a_new_operation_is_served_documented_and_listed(new_operation):
    write_inverter(new_operation)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with serving(models_dir=new_operation) as client:
        answer = client.post("/invert", content=png_file(pixels), headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Model"] == "inverter"
        np.testing.assert_array_equal(image(answer.content), (255 - pixels).repeat(2, 0).repeat(2, 1))
        documented = client.get("/openapi.json").json()["paths"]["/invert"]["post"]
        assert documented["operationId"] == "invert"
        assert {"415", "422", "503"} <= documented["responses"].keys()
        (listed,) = client.get("/models").json()["models"]
        assert listed["capabilities"] == ["invert"]
        assert listed["input_image"]["shape"] == [1, 16, 16]
        assert client.get("/models/inverter").json()["guarantees"]["invert"]["byte_identical"]
        assert 'operation="invert"' in client.get("/metrics").text
        problem_of(client.post("/generate", json={}), 422, "capability_missing")


def test_golden_rows_of_a_new_capability_are_checked_at_the_start(new_operation, caplog):
    with edited(write_inverter(new_operation)) as manifest:
        golden = manifest["golden"]["invert"]
        golden["outputs"][0]["data"] = TensorRecord.of(np.full((4, 1, 32, 32), 0.5, np.float32)).model_dump()["data"]
    with serving(models_dir=new_operation) as client:
        assert client.get("/readyz").status_code == 503
    assert "invert differs" in caplog.text

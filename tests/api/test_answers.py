"""Every JSON answer is what OpenAPI declares: read strictly, nothing missing, nothing more."""

import pytest
from pydantic import BaseModel

from app.api.answers import json_answer
from app.api.schemas import GenerateAnswer, InterpolateAnswer, ReconstructAnswer, ScoreAnswer
from app.inference.engine import Provenance


def declared(answer: type[BaseModel], content: bytes) -> None:
    """The content says the same, field by field and in the declared order, as the model that reads it."""
    read = answer.model_validate_json(content, strict=True)
    assert read.model_dump_json().encode() == content


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1, "seed": 7},
        {"n": 3, "seed": 0, "first": 5, "scale": 2},
        {"n": 256, "model": "vae"},
        {"model": "vae", "latents": [[0.5] * 16, [-0.5] * 16]},
    ],
)
def test_generated_images(client, body):
    declared(GenerateAnswer, client.post("/generate", json=body).content)


@pytest.mark.parametrize("params", [{}, {"seed": 3, "scale": 4}])
def test_a_reconstruction(client, digit, params):
    content = client.post("/reconstruct", files={"file": digit}, params=params).content
    assert (
        ReconstructAnswer.model_validate_json(content, strict=True).model_dump()
        == client.post("/reconstruct", files={"file": digit}, params=params).json()
    )


@pytest.mark.parametrize("params", [{"from_seed": 1, "to_seed": 2}, {"steps": 200, "path": "lerp"}])
def test_a_path(client, params):
    declared(InterpolateAnswer, client.get("/interpolate", params=params).content)


def test_a_path_between_latents(client):
    body = {"model": "vae", "from_latent": [0.1] * 16, "to_latent": [1.0] * 16, "steps": 3}
    declared(InterpolateAnswer, client.post("/interpolate", json=body).content)


def test_scores(client, digit):
    for answer in (client.post("/score", json={"n": 9, "first": 4}), client.post("/score", files={"files": digit})):
        read = ScoreAnswer.model_validate_json(answer.content, strict=True)
        assert read.model_dump() == answer.json()


def test_a_number_that_json_does_not_have_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_answer(Provenance("vae", "0", "float32", "1"), {"mean": [float("nan")]})

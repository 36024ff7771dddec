"""Every JSON answer validates against the model that its operation declares."""

import pytest
from pydantic import BaseModel

from app.operations.classify import ClassifyAnswer
from app.operations.generate import GenerateAnswer
from app.operations.interpolate import InterpolateAnswer
from app.operations.normalize import NormalizeAnswer
from app.operations.reconstruct import ReconstructAnswer
from app.operations.score import ScoreAnswer
from app.operations.upscale import UpscaleAnswer

LATENT = [0.5] * 6


def assert_declared(answer, model: type[BaseModel]):
    """The answer has the fields of the model, all that it requires and no others, in the types that it declares."""
    assert answer.status_code == 200, answer.text
    assert model.model_validate_json(answer.content, strict=True).model_dump(exclude_unset=True) == answer.json()


@pytest.mark.parametrize("name", ["boots", "cgan", "fitted", "gan", "plain"])
def test_generated_images(labelled, name):
    assert_declared(labelled.post("/generate", json={"model": name, "n": 33, "first": 5}), GenerateAnswer)


def test_images_with_their_latents(labelled):
    assert_declared(labelled.post("/generate", json={"n": 3, "return_latents": True}), GenerateAnswer)


def test_images_of_latents(labelled):
    assert_declared(labelled.post("/generate", json={"model": "plain", "latents": [LATENT]}), GenerateAnswer)


@pytest.mark.parametrize(
    "params", [{"model": "fitted"}, {"model": "fitted", "seed": 1}, {"model": "cvae", "label": "7"}, {"model": "plain"}]
)
def test_a_reconstruction(labelled, digit, params):
    assert_declared(labelled.post("/reconstruct", params=params, files={"file": digit}), ReconstructAnswer)


@pytest.mark.parametrize("params", [{}, {"model": "fitted", "to_label": "3"}, {"from_latent": "0.5," * 5 + "0.5"}])
def test_a_path(labelled, params):
    assert_declared(labelled.get("/interpolate", params=params), InterpolateAnswer)


def test_a_path_between_uploads(labelled, digit):
    assert_declared(labelled.post("/interpolate", files=[("files", digit)] * 2), InterpolateAnswer)


@pytest.mark.parametrize("name", ["cgan", "gan", "referee"])
def test_scores(labelled, digit, name):
    assert_declared(labelled.post("/score", json={"model": name, "n": 9}), ScoreAnswer)
    params = {"model": name} | ({"label": "7"} if name == "cgan" else {})
    assert_declared(labelled.post("/score", params=params, files={"files": digit}), ScoreAnswer)


def test_a_normalized_upload(labelled, digit):
    assert_declared(labelled.post("/normalize", files={"file": digit}), NormalizeAnswer)


def test_classes(labelled, digit):
    assert_declared(labelled.post("/classify", files=[("files", digit)] * 3), ClassifyAnswer)


def test_upscaled_images(labelled, digit):
    assert_declared(labelled.post("/upscale", params={"factor": 2}, files={"files": digit}), UpscaleAnswer)
    assert_declared(labelled.post("/upscale", json={"n": 33, "first": 5}), UpscaleAnswer)

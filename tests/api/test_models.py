"""GET /models and /models/{name}."""

import json

import pytest

from app.checkpoints.manifest import Manifest
from tests.api.reading import PNG, problem_of
from tests.conftest import ROOT
from tests.tiny_models import GARMENTS, LATENT_DIM, SMALL_SIDE


def test_the_list_says_what_each_model_can_do(labelled):
    body = labelled.get("/models").json()
    assert body["default"] is None
    listed = {model["name"]: model for model in body["models"]}
    assert list(listed) == sorted(listed)
    assert {"boots", "cgan", "double", "gan", "reader", "sketch"} < set(listed)
    conditional = {name for name, model in listed.items() if model["conditional"]}
    assert conditional == {"boots", "cgan", "cvae", "mixed", "sketch"}
    assert set(listed["fitted"]["capabilities"]) == {"generate", "decode", "encode", "prior"}
    assert set(listed["plain"]["capabilities"]) == {"generate", "decode", "embed"}
    assert {name: model["latent_dim"] for name, model in listed.items() if model["latent_dim"] != LATENT_DIM} == {
        "gan": 100,
        **dict.fromkeys(["double", "quadruple", "reader", "referee"]),
    }
    assert {name for name, model in listed.items() if not model["smooth_latents"]} == {"sketch"}
    assert not any(model["sequential"] for model in listed.values())
    assert (listed["fitted"]["priors"], listed["gan"]["priors"]) == (["fitted", "normal"], ["normal"])
    assert listed["boots"]["sampling"] == ["temperature", "truncation"]
    assert listed["boots"]["classes"] == list(GARMENTS)
    for name, side in (("small", SMALL_SIDE), ("double", 28 // 2), ("quadruple", 28 // 4)):
        assert listed[name]["image"]["shape"] == [1, 28, 28]
        assert listed[name]["input_image"]["shape"] == [1, side, side]
    assert listed["plain"]["input_image"] is None


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("models/*/manifest.json")))
def test_a_model_has_its_manifest_and_card(client, name):
    body = client.get(f"/models/{name}").json()
    written = json.loads((ROOT / "models" / name / "manifest.json").read_text())
    whole = Manifest.model_validate(written).model_dump(mode="json", exclude={"golden"})
    assert body["manifest"] == whole
    assert body["card"] == (ROOT / "models" / name / "card.md").read_text()
    assert body["digest"] == written["archives"][body["precision"]]["digest"]
    assert set(body["guarantees"]) == set(written["capabilities"])
    if distance := written["quality"]["figures"].get("frechet_distance"):
        assert distance["floor"] < distance["value"] < distance["ceilings"]["noise"]


def test_the_runtime_of_answers_is_explained(client):
    runtime = client.get("/models/gan").json()["runtime"]
    assert runtime["id"] == client.post("/generate", json={"model": "gan"}).json()["runtime"]
    assert runtime["facts"]["device"] == "cpu"
    assert {"precision", "processor", "torch", "numpy", "pillow", "latents"} <= set(runtime["facts"])


@pytest.mark.parametrize("path", ["/models", "/models/vae"])
def test_models_are_described_as_json_only(client, path):
    problem_of(client.get(path, headers=PNG), 406, "not_acceptable")

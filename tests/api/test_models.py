"""GET /models and /models/{name}."""

import json

import pytest

from tests.api.reading import problem_of
from tests.conftest import ROOT


def test_every_loaded_model_is_listed_with_what_it_can(client):
    body = client.get("/models").json()
    assert body["default"] is None
    listed = {model["name"]: model for model in body["models"]}
    assert set(listed["vae"]["capabilities"]) == {"generate", "decode", "encode", "prior"}
    assert set(listed["gan"]["capabilities"]) == {"generate", "discriminate"}
    assert (listed["vae"]["latent_dim"], listed["gan"]["latent_dim"]) == (16, 100)
    assert listed["vae"]["image"]["shape"] == [1, 28, 28]
    assert listed["gan"]["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_a_model_shows_its_manifest_and_card(client, name):
    body = client.get(f"/models/{name}").json()
    written = json.loads((ROOT / "models" / name / "manifest.json").read_text())
    del written["golden"], written["checksum"]
    assert body["manifest"] == written
    assert body["card"] == (ROOT / "models" / name / "card.md").read_text()
    assert body["digest"] == written["archives"][body["precision"]]["digest"]


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_quality_stands_between_its_floor_and_its_ceilings_under_a_named_protocol(client, name):
    quality = client.get(f"/models/{name}").json()["manifest"]["quality"]
    assert quality["protocol"] == "digits-eval-1"
    assert (quality["images"], quality["seeds"]) == (10_000, [0, 1, 2])
    distance = quality["figures"]["frechet_distance"]
    assert set(distance["ceilings"]) == {"noise", "blurred", "one_class"}
    assert distance["floor"] < distance["value"] < min(distance["ceilings"].values())
    assert 0 < distance["deviation"] < 0.1 * distance["value"]


def test_the_runtime_of_answers_is_explained(client):
    runtime = client.get("/models/gan").json()["runtime"]
    assert runtime["id"] == client.post("/generate", json={"model": "gan"}).json()["runtime"]
    assert runtime["facts"]["device"] == "cpu"
    assert {"precision", "processor", "torch", "numpy", "pillow", "latents"} <= set(runtime["facts"])


def test_an_unknown_model_is_not_found_and_its_name_is_not_repeated(client):
    answer = client.get("/models/somebody-else")
    problem_of(answer, 404, "model_not_found")
    assert "somebody" not in answer.text


@pytest.mark.parametrize("path", ["/models", "/models/vae"])
def test_only_json_is_answered(client, path):
    problem_of(client.get(path, headers={"Accept": "image/png"}), 406, "not_acceptable")

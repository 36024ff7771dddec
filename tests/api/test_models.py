"""GET /models and /models/{name}."""

import hashlib
import json
import shutil

import pytest

from app.checkpoints.manifest import Manifest
from tests.api.reading import problem_of
from tests.conftest import ROOT, SHIPPED_NAMES, serving
from tests.tiny_models import GARMENTS, LATENT_DIM, SMALL_SIDE, write_vae


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
    assert set(listed["gan"]["row_ms"]) == {"generate", "discriminate"}
    assert all(cost > 0 for cost in listed["gan"]["row_ms"].values())
    assert (listed["fitted"]["priors"], listed["gan"]["priors"]) == (["fitted", "normal"], ["normal"])
    assert listed["boots"]["sampling"] == ["temperature", "truncation"]
    assert listed["boots"]["classes"] == list(GARMENTS)
    for name, side in (("small", SMALL_SIDE), ("double", 28 // 2), ("quadruple", 28 // 4)):
        assert listed[name]["image"]["shape"] == [1, 28, 28]
        assert listed[name]["input_image"]["shape"] == [1, side, side]
    assert listed["plain"]["input_image"] is None


@pytest.mark.parametrize("name", SHIPPED_NAMES)
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


PICTURES = sorted(path.relative_to(ROOT / "models") for path in ROOT.glob("models/*/*.png"))


@pytest.mark.parametrize("path", PICTURES, ids=str)
def test_every_picture_of_a_checkpoint_is_listed_and_served(client, path):
    name, picture = path.parent.name, path.stem
    listed = next(model for model in client.get("/models").json()["models"] if model["name"] == name)
    assert picture in listed["pictures"]
    assert picture in client.get(f"/models/{name}").json()["pictures"]
    answer = client.get(f"/models/{name}/pictures/{picture}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (ROOT / "models" / path).read_bytes()


def test_a_copy_of_a_picture_is_checked_by_its_etag(client):
    path = "/models/vae/pictures/samples"
    answer = client.get(path)
    etag = answer.headers["etag"]
    assert etag == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["cache-control"] == "private, no-cache"
    again = client.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == answer.content
    assert client.head(path).headers["etag"] == etag


@pytest.mark.parametrize(
    "picture", ["film", "card", "samples.png", "..%2Fmanifest", "%2e%2e%2fcard.md", "Samples", "%00"]
)
def test_only_pictures_that_a_checkpoint_ships_are_served(client, picture):
    code = "not_found" if "%2F" in picture.upper() else "not_shipped"  # a slash makes another path
    problem_of(client.get(f"/models/lenet/pictures/{picture}"), 404, code)


@pytest.mark.parametrize("path", ["history", "pictures/samples"])
def test_pictures_and_histories_are_of_loaded_models(client, path):
    problem_of(client.get(f"/models/nobody/{path}"), 404, "model_not_found")
    problem_of(client.get(f"/models/vae/{path}?size=2"), 422, "invalid_request")
    problem_of(client.get(f"/models/vae/{path}", headers={"Accept": "text/css"}), 406, "not_acceptable")


def test_the_history_has_the_epochs_of_the_run_that_made_the_weights(client, labelled):
    listed = {model["name"]: model["history"] for model in client.get("/models").json()["models"]}
    assert any(listed.values())
    for name in [name for name, there in listed.items() if there]:
        history = client.get(f"/models/{name}/history").json()
        record = client.get(f"/models/{name}").json()["manifest"]["training"]
        assert len(history["epochs"]) == record["epochs"]
        assert history["exported"] == (record["epoch"] or record["epochs"])
        losses = history["epochs"][history["exported"] - 1]
        assert record["losses"] == {loss: pytest.approx(losses[loss], rel=1e-5) for loss in record["losses"]}
    problem_of(labelled.get("/models/cgan/history"), 404, "not_shipped")


def test_pictures_stay_those_of_the_loaded_weights(tmp_path):
    folder, picture = write_vae(tmp_path), tmp_path / "vae" / "samples.png"
    shutil.copy(ROOT / "models" / "gan" / "samples.png", picture)
    loaded = picture.read_bytes()
    with serving(models_dir=tmp_path) as other:
        picture.write_bytes(b"of another export")
        (folder / "film.png").write_bytes(loaded)
        assert other.get("/models/vae/pictures/samples").content == loaded
        problem_of(other.get("/models/vae/pictures/film"), 404, "not_shipped")

"""The whole way, tiny: a few images, one epoch, export, serve, a picture out."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.api.reading import image, pixels_of
from tests.conftest import FIXTURES, serving
from training import export
from training.data import Dataset
from training.families import batch_norm, families
from training.trainer import train


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export makes images by the thousand, to compare archives and for statistics: a minute of a GAN's."""
    monkeypatch.setattr(export, "DEVIATION_IMAGES", 64)
    monkeypatch.setattr(batch_norm, "BATCHES", 1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The ten committed digits, each shifted to 25 places: 250 images."""
    digits = [np.asarray(Image.open(FIXTURES / "mnist" / f"{digit}.png")) for digit in range(10)]
    shifts = list(itertools.product(range(-2, 3), repeat=2))
    moved = [np.roll(digit, shift, (0, 1)) for shift in shifts for digit in digits]
    images = torch.from_numpy(np.stack(moved))[:, None]
    labels = torch.arange(10).repeat(len(shifts))
    return Dataset("ten digits", "0" * 64, images, labels, images[::5], labels[::5])


@pytest.mark.parametrize("family", ["vae", "gan", "autoencoder"])
def test_a_trained_model_is_served(family: str, dataset: Dataset, tmp_path: Path, digit: bytes) -> None:
    config = families()[family].config(
        family=family,
        name="tiny",
        epochs=1,
        batch_size=50,
        device="cpu",
        runs_dir=tmp_path / "runs",
        models_dir=tmp_path / "models",
    )
    train(config, dataset=dataset)
    manifest = json.loads((tmp_path / "models" / "tiny" / "manifest.json").read_text())
    assert manifest["dataset"] == {"name": "ten digits", "digest": "0" * 64, "train_images": 250}
    assert manifest["training"]["epochs"] == 1
    for path in (tmp_path / "models" / "tiny").glob("*.pt"):
        made = torch.jit.load(io.BytesIO(path.read_bytes())).generate(torch.zeros(2, manifest["latent_dim"]))
        assert (made.shape, made.dtype) == ((2, 1, 28, 28), torch.float32)
        assert 0 <= made.min() <= made.max() <= 1
    with serving(models_dir=tmp_path / "models") as client:
        answer = client.post("/generate", json={"n": 4, "seed": 1}, headers={"Accept": "image/png"})
        assert answer.headers["x-model"] == "tiny"
        archive = manifest["archives"][answer.headers["x-precision"]]
        assert answer.headers["x-model-digest"] == archive["digest"]
        assert image(answer.content).shape == (56, 56)
        walk = pixels_of(client.get("/interpolate", params={"from_seed": 1, "to_seed": 2, "steps": 3}))
        assert len(walk) == 3
        if family != "gan":
            seen = client.post("/reconstruct", files={"file": digit}).json()["input"]["png"]
            assert seen
            assert client.post("/score", json={}).json()["code"] == "capability_missing"
        else:
            assert len(client.post("/score", json={"n": 2}).json()["scores"]) == 2
            assert client.post("/reconstruct", files={"file": digit}).json()["code"] == "capability_missing"

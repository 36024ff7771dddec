"""The way back from a shipped archive to textbook layers."""

from pathlib import Path

import pytest
import torch

from app.checkpoints.store import load_models
from app.inference.latents import normal_rows
from app.inference.runtime import Runtime
from benchmarks.textbook import write_textbook
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_the_textbook_form_is_a_checkpoint_of_the_same_function(tmp_path: Path, name: str) -> None:
    write_textbook(ROOT / "models" / name, tmp_path / name)
    runtime = Runtime("cpu", "float32")
    # Loading compares it with the golden rows of the shipped one, for every capability.
    plain = load_models(tmp_path, runtime, 8)[name]
    shipped = load_models(ROOT / "models", runtime, 8)[name]
    assert plain.networks.keys() == shipped.networks.keys()
    assert all(plain.identical.values())
    latents = normal_rows(1, 0, 8, plain.manifest.latent_dim)
    ours, theirs = (model.networks["generate"].compute([latents])[0][0] for model in (plain, shipped))
    assert abs(ours - theirs).max() < 1e-4


def test_the_textbook_form_has_the_layers_of_training(tmp_path: Path) -> None:
    write_textbook(ROOT / "models" / "gan", tmp_path / "gan")
    (path,) = (tmp_path / "gan").glob("*.pt")
    names = set(torch.jit.load(path).state_dict())
    assert {
        "generator.dense.weight",
        "generator.up1.weight",
        "generator.up2.weight",
        "generator.to_image.weight",
    } <= names

"""The textbook archives compute the same functions as the shipped ones."""

import json

import pytest
import torch

from benchmarks.archives import load_archive, write_textbook
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_the_textbook_form_computes_the_same_images(tmp_path, name):
    shipped = ROOT / "models" / name
    write_textbook(shipped, tmp_path / name)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (shipped, tmp_path / name)]
    theirs, ours = (
        load_archive(folder / manifest["archives"]["float32"]["file"])
        for folder, manifest in zip((shipped, tmp_path / name), manifests, strict=True)
    )
    with torch.inference_mode():
        latents = torch.randn(8, manifests[0]["latent_dim"])
        images = theirs.generate(latents)
        torch.testing.assert_close(ours.generate(latents), images, atol=1e-4, rtol=0)
        if name == "vae":
            torch.testing.assert_close(ours.encode(images), theirs.encode(images), atol=1e-4, rtol=0)
            torch.testing.assert_close(ours.decode(latents), theirs.decode(latents), atol=1e-4, rtol=0)

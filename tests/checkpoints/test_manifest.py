"""Manifests: which combinations of capabilities, shapes and labels are valid."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app.checkpoints.capabilities import CAPABILITIES, Symbol
from app.checkpoints.manifest import PIXEL_BOUND, Manifest, TensorRecord
from app.checkpoints.store import CheckpointError, read_manifest
from tests.tiny_models import described, fields, write_vae

TEN = tuple("0123456789")
VAE = ("generate", "decode", "encode")

VALID: dict[str, dict[str, Any]] = {
    "gan": fields("m", "generate", "discriminate"),
    "vae": fields("m", *VAE),
    "conditional": fields("m", *VAE, "discriminate", conditional=True, classes=TEN),
    "labelled data": fields("m", *VAE, classes=TEN),
    "fitted prior": fields("m", *VAE, "prior", priors=("fitted", "normal"), classes=TEN),
    "conditional with a fitted prior": fields(
        "m", *VAE, "prior", conditional=True, priors=("fitted",), classes=("a b", "c/d")
    ),
    "deterministic code": fields("m", "embed", "decode"),
    "larger input": fields("m", "embed", "decode", input_side=8),
    "larger posterior input": fields("m", *VAE, input_side=8),
    "no latents": fields("m", "discriminate", latent_dim=None),
    "classifier": fields("m", "classify", latent_dim=None, classes=TEN),
    "upscaler": fields("m", "upscale", latent_dim=None, input_side=2),
    "no latents, with labels": fields("m", "discriminate", latent_dim=None, conditional=True, classes=TEN),
}


@pytest.mark.parametrize("kind", VALID)
def test_a_manifest_of_every_kind_is_valid_and_survives_its_file(kind):
    manifest = Manifest.model_validate(VALID[kind])
    assert Manifest.model_validate_json(manifest.file_content()) == manifest
    for capability in manifest.capabilities:
        labelled = manifest.takes_labels(capability)
        assert manifest.inputs(capability) == CAPABILITIES[capability].inputs + (Symbol.LABEL,) * labelled


OTHER_FORM = {"shape": [1, 5, 5], "normalization": None}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"latent_dim": 2, "noise_dim": 2}, ["gan", "vae", "conditional", "deterministic code", "larger input"]),
        ({"latent_dim": 2, "noise_dim": 3}, ["fitted prior"]),
        ({"image": OTHER_FORM}, ["gan", "vae", "deterministic code", "larger input", "no latents"]),
        ({"input_image": OTHER_FORM}, ["vae", "deterministic code", "larger input", "larger posterior input"]),
        ({"input_image": None}, ["larger input", "larger posterior input"]),
        ({"conditional": True, "classes": TEN}, ["gan", "vae", "fitted prior", "deterministic code", "no latents"]),
        ({"conditional": False}, ["conditional", "conditional with a fitted prior", "no latents, with labels"]),
    ],
    ids=str,
)
def test_golden_rows_of_other_shapes_than_the_manifest_says_are_refused(change, kinds):
    for kind in kinds:
        with pytest.raises(ValidationError, match="golden rows"):
            Manifest.model_validate(VALID[kind] | change)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("vae", {"schema_version": 2}),
        ("vae", {"format": "pickle"}),
        ("vae", {"name": "../vae"}),
        ("vae", {"surprise": 1}),
        ("vae", {"latent_dim": 0}),
        ("vae", {"latent_dim": None, "noise_dim": None}),
        ("vae", {"capabilities": [*VAE, "fly"]}),
        ("vae", {"capabilities": ["generate"]}),
        ("vae", {"capabilities": []}),
        ("vae", {"archives": {}}),
        ("vae", {"archives": {"bfloat16": described("m.pt", b"-", images=8, largest=0, mean=0)}}),
        ("vae", {"archives": {"float32": described("../m.pt", b"-")}}),
        ("vae", {"archives": {"float32": described("m.pt", b"-"), "bfloat16": described("n.pt", b"-")}}),
        ("vae", {"image": {"shape": [1, 4, 5], "normalization": None}}),
        ("vae", {"sampling": ["luck"]}),
        ("classifier", {"classes": []}),
        ("upscaler", {"input_image": {"shape": [1, 3, 3], "normalization": None}}),
        ("vae", {"noise_dim": 4}),
        ("vae", {"priors": ["fitted", "normal"], "noise_dim": 4}),
        ("conditional", {"classes": []}),
        ("conditional", {"classes": ["cat", "cat"]}),
        ("conditional", {"classes": ["cat", "balanced"]}),
        ("conditional", {"classes": ["cat,dog"]}),
        ("conditional", {"classes": ["cat\n"]}),
        ("conditional", {"classes": [""]}),
        ("fitted prior", {"classes": []}),
        ("fitted prior", {"priors": []}),
        ("fitted prior", {"priors": ["normal"]}),
        ("fitted prior", {"priors": ["fitted", "fitted"]}),
        ("fitted prior", {"noise_dim": 3}),
    ],
)
def test_fields_that_are_invalid_or_do_not_fit_together_are_refused(kind, change):
    with pytest.raises(ValidationError):
        Manifest.model_validate(VALID[kind] | change)


@pytest.mark.parametrize(
    "change",
    [{"shape": []}, {"shape": [0, 3]}, {"shape": [3, 3]}, {"shape": [4, 4]}, {"dtype": "int64"}],
    ids=str,
)
def test_golden_rows_that_do_not_fit_their_outputs_are_refused(change):
    manifest = json.loads(json.dumps(VALID["vae"]))
    manifest["golden"]["generate"]["inputs"][0] |= change
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest)


@pytest.mark.parametrize(("largest", "valid"), [(PIXEL_BOUND, True), (1.01 * PIXEL_BOUND, False)])
def test_a_low_precision_archive_stays_within_the_bound(largest, valid):
    low = described("n.pt", b"-", images=8, largest=largest, mean=0.001)
    changed = VALID["gan"] | {"archives": {"float32": described("m.pt", b"-"), "bfloat16": low}}
    if valid:
        Manifest.model_validate(changed)
    else:
        with pytest.raises(ValidationError):
            Manifest.model_validate(changed)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_a_recorded_tensor_comes_back_exactly(dtype):
    array = np.linspace(-1000, 1000, 24).astype(dtype).reshape(2, 3, 4)
    again = TensorRecord.of(array).array()
    assert again.dtype == dtype
    assert np.array_equal(again, array)


def test_a_manifest_from_before_there_were_labels_is_valid():
    old = json.loads(json.dumps(VALID["vae"]))
    for field in ("conditional", "priors", "noise_dim", "input_image"):
        del old[field]
    for golden in old["golden"].values():
        for record in (*golden["inputs"], *golden["outputs"]):
            del record["dtype"]
    assert Manifest.model_validate(old) == Manifest.model_validate(VALID["vae"])


def test_a_flipped_bit_in_a_manifest_is_refused_or_changes_nothing(tmp_path: Path):
    path = write_vae(tmp_path) / "manifest.json"
    content, sound = path.read_bytes(), read_manifest(path)
    chosen = random.Random(0)
    refused = 0
    for _ in range(200):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_manifest(path) == sound
        except CheckpointError:
            refused += 1
    assert refused > 100  # the other bits are in white space


def test_a_checksum_covers_the_content_not_the_layout_and_may_be_left_out(tmp_path: Path):
    path = write_vae(tmp_path) / "manifest.json"
    sound = read_manifest(path)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(dict(sorted(written.items(), reverse=True)), indent=1))
    assert read_manifest(path) == sound
    path.write_text(json.dumps(written | {"family": "other"}))
    with pytest.raises(CheckpointError):
        read_manifest(path)
    del written["checksum"]
    path.write_text(json.dumps(written | {"family": "other"}))
    assert read_manifest(path).family == "other"

"""Exported checkpoints are self-contained, verified, and never half written."""

import csv
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import training.export
from app.checkpoints.manifest import Manifest
from app.checkpoints.store import read_manifest
from tests.conftest import contents
from tests.training.conftest import manifest_of
from training.data import to_unit_range
from training.divergence import Diverged
from training.export import Trained, export, portable
from training.families import build_learner
from training.families.vae import VaeConfig
from training.generation import balanced_labels, draw_latents
from training.golden import ExportMismatch
from training.learner import DataShape, Learner

EXPORTED = {"manifest.json", "curves.png", "history.json", "card.md"}
HISTORY = [{"epoch": 1, "negative_elbo": 300.0, "kl_divergence": 3.0}]

# A program that runs where this project cannot be imported.
ISOLATED = """
import base64, importlib.util, json, sys
from pathlib import Path
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("training") is None, "the project must be out of reach"
assert importlib.util.find_spec("app") is None, "the project must be out of reach"
import torch
directory = Path(sys.argv[2])
manifest = json.loads((directory / "manifest.json").read_text())
archive = torch.jit.load(directory / manifest["archives"]["float32"]["file"]).eval()
def tensor(record):
    data = bytearray(base64.b64decode(record["data"]))
    return torch.frombuffer(data, dtype=getattr(torch, record["dtype"])).view(record["shape"])
for capability, golden in manifest["golden"].items():
    with torch.no_grad():
        outputs = getattr(archive, capability)(*[tensor(record) for record in golden["inputs"]])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for output, record in zip(outputs, golden["outputs"], strict=True):
        assert output.shape == tensor(record).shape
        assert (output - tensor(record)).abs().max() <= golden["tolerance"] / 10
"""


def assert_whole(directory: Path) -> Manifest:
    """Check that the archives agree with the manifest."""
    manifest = read_manifest(directory / "manifest.json")
    for archive in manifest.archives.values():
        content = (directory / archive.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == archive.digest
        assert len(content) == archive.bytes
    return manifest


def vae(config: VaeConfig, seed: int) -> Learner:
    torch.manual_seed(seed)
    return build_learner(config, DataShape(), 1)


def test_an_archive_gives_its_golden_outputs_with_plain_pytorch(vae_run, tmp_path):
    directory = vae_run.models_dir / "vae"
    packages = Path(torch.__file__).parents[1]
    # -I -S: neither the working directory nor an editable install is on the path.
    command = [sys.executable, "-I", "-S", "-c", ISOLATED, str(packages), str(directory)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fixture", "latent_dim", "parameters"),
    [
        ("vae_run", 16, {"generate and decode": 108_993, "encode": 424_480, "prior": 27_290}),
        ("gan_run", 100, {"generate": 88_193, "discriminate": 40_705}),
    ],
)
def test_the_manifest_describes_the_checkpoint(request, dataset, fixture, latent_dim, parameters):
    run = request.getfixturevalue(fixture)
    manifest = assert_whole(run.models_dir / run.name)
    assert (manifest.name, manifest.family, manifest.latent_dim) == (run.name, run.family, latent_dim)
    assert set(manifest.capabilities) == set(" and ".join(parameters).split(" and "))
    assert manifest.image.normalization is not None
    assert (manifest.image.shape, manifest.image.normalization.box) == ((1, 28, 28), 20)
    assert manifest.classes == dataset.classes
    assert manifest.dataset.digest == dataset.digest
    assert manifest.dataset.train_images == (run.train_images or len(dataset.train_images))
    record = manifest.training
    assert (record.parameters, record.seed, record.epochs) == (parameters, run.seed, run.epochs)
    last = list(csv.DictReader((run.run_dir / "metrics.csv").read_text().splitlines()))[-1]
    assert record.losses == {name: float(last[name]) for name in record.losses}
    assert manifest.quality is not None


def test_the_recorded_config_is_complete_and_has_no_paths_of_this_machine(vae_run):
    recorded = manifest_of(vae_run).training.config
    assert recorded == portable(vae_run)
    assert not any(name.endswith("_dir") for name in recorded)
    assert str(vae_run.runs_dir.parent) not in json.dumps(recorded)
    assert portable(VaeConfig(**recorded)) == recorded


def test_a_new_export_replaces_the_manifest_and_removes_what_belongs_to_the_old_weights(tiny, vae_run, dataset):
    config = tiny("vae")
    directory = config.models_dir / "vae"
    shutil.copytree(vae_run.models_dir / "vae", directory)
    old = assert_whole(directory)
    (directory / ".vae-0123456789ab.pt.abcd1234.partial").write_bytes(b"of an export that was killed")
    assert export(config, vae(config, seed=2), dataset, HISTORY, Trained(1, processes=3)) == directory
    new = assert_whole(directory)
    assert new.archives["float32"].digest != old.archives["float32"].digest
    assert set(contents(directory)) == {archive.file for archive in new.archives.values()} | EXPORTED
    assert new.quality is None
    assert new.training.processes == 3


@pytest.mark.parametrize("failing", ["archive", "manifest.json", "card.md"])
def test_after_any_failed_write_a_whole_checkpoint_is_there(tiny, dataset, monkeypatch, failing):
    config = tiny("vae")
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    before, replace = contents(directory), os.replace

    def full(source: str, target: Path) -> None:
        if target.name == failing or (failing == "archive" and target.suffix == ".pt"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            export(config, vae(config, seed=2), dataset, HISTORY)
    assert_whole(directory)
    assert not [name for name in contents(directory) if name.startswith(".")]
    if failing in {"archive", "manifest.json"}:
        assert before.items() <= contents(directory).items()
    export(config, vae(config, seed=2), dataset, HISTORY)
    archives = {archive.file for archive in assert_whole(directory).archives.values()}
    assert set(contents(directory)) == archives | EXPORTED


@torch.no_grad()
def test_a_bfloat16_archive_is_exported_with_its_deviation_from_float32(vae_run, dataset):
    directory, manifest = vae_run.models_dir / "vae", manifest_of(vae_run)
    archive = manifest.archives["bfloat16"]
    lower, reference = (torch.jit.load(directory / manifest.archives[key].file) for key in ("bfloat16", "float32"))
    assert archive.deviation is not None
    assert manifest.archives["float32"].deviation is None
    assert archive.deviation.images == training.export.DEVIATION_IMAGES
    latents = draw_latents(reference, manifest, balanced_labels(archive.deviation.images, 10), vae_run.seed)
    difference = (lower.generate(latents) - reference.generate(latents)).abs()
    assert archive.deviation.largest == pytest.approx(float(difference.max()), rel=1e-3)
    assert archive.deviation.mean == pytest.approx(float(difference.mean()), rel=1e-3)
    images = to_unit_range(dataset.test_images[:4])
    assert all(torch.equal(a, b) for a, b in zip(lower.encode(images), reference.encode(images), strict=True))


def test_a_bfloat16_archive_beyond_the_bound_is_not_exported(tiny, dataset, monkeypatch):
    monkeypatch.setattr(training.export, "deviation", lambda *_: (2.01 / 255, 0.001))
    directory = export(tiny("vae"), vae(tiny("vae"), seed=1), dataset, HISTORY)
    assert set(assert_whole(directory).archives) == {"float32"}


@pytest.mark.parametrize(("fault", "expected"), [("differs", ExportMismatch), ("not finite", Diverged)])
def test_a_refused_export_leaves_the_previous_checkpoint(tiny, dataset, monkeypatch, fault, expected):
    config = tiny("vae")
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    before, learner = contents(directory), vae(config, seed=2)
    if expected is Diverged:
        nn.init.constant_(next(learner.parameters()), float("nan"))
    else:
        other = vae(config, seed=3).networks((dataset.train_images, dataset.train_labels))
        monkeypatch.setattr(learner, "fast", lambda networks, dtype: other)
    with pytest.raises(expected, match=fault):
        export(config, learner, dataset, HISTORY)
    assert contents(directory) == before

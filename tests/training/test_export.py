"""From trained networks to a checkpoint: self-contained, verified, and never half written."""

import errno
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import training.export
from app.checkpoints.manifest import Manifest
from training.agreement import ExportMismatch, golden_cases
from training.card import PICTURES
from training.config import TrainConfig, VaeConfig
from training.data import to_unit_range
from training.export import Learned, export, portable, source_commit
from training.families import build_learner
from training.families.family import Learner
from training.sampling import balanced, draw_latents
from training.torchscript import script

EXPORTED = {"manifest.json", "samples.png", "curves.png", "card.md"}
HISTORY = [{"epoch": 1, "negative_elbo": 300.0, "kl_divergence": 3.0}]

# Runs where nothing of this project can be imported: plain PyTorch and the manifest's JSON.
STRANGER = """
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
report = {}
for capability, golden in manifest["golden"].items():
    with torch.no_grad():
        outputs = getattr(archive, capability)(*[tensor(record) for record in golden["inputs"]])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    expected = [tensor(record) for record in golden["outputs"]]
    assert len(outputs) == len(expected)
    assert all(a.shape == b.shape for a, b in zip(outputs, expected))
    difference = max(float((a - b).abs().max()) for a, b in zip(outputs, expected))
    report[capability] = [difference, golden["tolerance"], [list(output.shape) for output in outputs]]
print(json.dumps(report))
"""


def checkpoint_of(run: TrainConfig) -> tuple[Path, Manifest]:
    directory = run.models_dir / run.name
    return directory, Manifest.model_validate_json((directory / "manifest.json").read_bytes())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_whole(directory: Path) -> Manifest:
    """The manifest names a file that is there and is what it says."""
    manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    for archive in manifest.archives.values():
        content = (directory / archive.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == archive.digest
        assert len(content) == archive.bytes
    return manifest


def vae(config: VaeConfig, seed: int) -> Learner:
    torch.manual_seed(seed)
    return build_learner(config, 1, 10)


@pytest.mark.parametrize(
    ("fixture", "shapes"),
    [
        (
            "vae_run",
            {
                "generate": [[4, 1, 28, 28]],
                "decode": [[4, 1, 28, 28]],
                "encode": [[4, 16], [4, 16]],
                "prior": [[4, 16]],
            },
        ),
        ("gan_run", {"generate": [[4, 1, 28, 28]], "discriminate": [[4]]}),
    ],
)
def test_an_archive_gives_its_golden_outputs_where_nothing_of_this_project_is(request, tmp_path, fixture, shapes):
    directory, _ = checkpoint_of(request.getfixturevalue(fixture))
    packages = Path(torch.__file__).parents[1]
    # -I -S: neither the working directory nor an editable install is on the path.
    command = [sys.executable, "-I", "-S", "-c", STRANGER, str(packages), str(directory)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {capability: outputs for capability, (_, _, outputs) in report.items()} == shapes
    for difference, tolerance, _ in report.values():
        assert difference <= tolerance / 10


@pytest.mark.parametrize(
    ("fixture", "capabilities", "latent_dim", "parameters"),
    [
        (
            "vae_run",
            {"generate", "decode", "encode", "prior"},
            16,
            {"encoder": 424_480, "decoder": 108_993, "mixtures": 27_290},
        ),
        ("gan_run", {"generate", "discriminate"}, 100, {"generator": 1_164_289, "discriminator": 40_705}),
    ],
)
def test_the_manifest_says_what_was_exported(request, dataset, fixture, capabilities, latent_dim, parameters):
    run = request.getfixturevalue(fixture)
    directory, manifest = checkpoint_of(run)
    assert_whole(directory)
    assert manifest.name == directory.name == run.name
    assert manifest.family == run.family
    assert set(manifest.capabilities) == capabilities
    assert manifest.latent_dim == latent_dim
    assert manifest.image.shape == (1, 28, 28)
    assert manifest.image.normalization is not None
    assert manifest.image.normalization.box == 20
    assert manifest.classes == tuple("0123456789")
    assert manifest.dataset.digest == dataset.digest
    assert manifest.dataset.train_images == (run.train_images or len(dataset.train_images))
    assert manifest.training.parameters == parameters
    assert manifest.training.seed == run.seed
    assert manifest.training.epochs == run.epochs
    assert manifest.training.versions["torch"] == torch.__version__
    assert manifest.quality is not None
    assert manifest.quality.figures


def test_the_manifest_says_how_many_processes_trained_and_an_older_one_means_one(make_vae, dataset):
    config = make_vae()
    manifest = assert_whole(export(config, vae(config, seed=1), dataset, HISTORY, Learned(1, processes=3)))
    assert manifest.training.processes == 3
    older = manifest.model_dump(mode="json")
    del older["training"]["processes"]
    assert Manifest.model_validate(older).training.processes == 1


def test_the_archives_name_holds_its_digest_and_nothing_else_is_left_in_the_directory(vae_run, gan_run):
    for run in (vae_run, gan_run):
        directory, manifest = checkpoint_of(run)
        for archive in manifest.archives.values():
            assert archive.file == f"{run.name}-{archive.digest[:12]}.pt"
        archives = {archive.file for archive in manifest.archives.values()}
        assert set(contents(directory)) == archives | {"manifest.json", "card.md"} | set(PICTURES)
        with Image.open(directory / "samples.png") as image:
            image.load()
            # A column a class where images have labels, else eight.
            columns = 10 if "prior" in manifest.capabilities else 8
            assert (image.format, image.size) == ("PNG", (columns * 56, 448))


def test_the_losses_recorded_are_those_of_the_last_epoch(vae_run):
    last = (vae_run.run_dir / "metrics.csv").read_text().splitlines()[-1].split(",")
    losses = checkpoint_of(vae_run)[1].training.losses
    assert losses == {"negative_elbo": float(last[1]), "kl_divergence": float(last[2])}


def test_the_recorded_config_trains_the_same_again_and_names_no_place_of_this_machine(vae_run):
    recorded = checkpoint_of(vae_run)[1].training.config
    assert recorded == portable(vae_run)
    assert not any(name.endswith("_dir") for name in recorded)
    assert str(vae_run.runs_dir.parent) not in json.dumps(recorded)
    assert portable(VaeConfig(**recorded)) == recorded


def test_golden_inputs_are_real_test_images_and_their_outputs_what_the_archive_gives(vae_run, dataset):
    directory, manifest = checkpoint_of(vae_run)
    archive = torch.jit.load(directory / manifest.archives["float32"].file)
    golden = manifest.golden["encode"]
    images = torch.from_numpy(golden.inputs[0].array())
    assert torch.equal((images * 255).round().to(torch.uint8), dataset.test_images[:4])
    outputs = [torch.from_numpy(record.array()) for record in golden.outputs]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(archive.encode(images), outputs, strict=True))


def test_the_archive_computes_what_the_learner_would_ship(make_vae, dataset):
    config = make_vae()
    learner = vae(config, seed=1)
    directory = export(config, learner, dataset, HISTORY)
    archive = torch.jit.load(directory / assert_whole(directory).archives["float32"].file)
    expected: Any = learner.archive()
    latents = torch.randn(5, 16)
    assert torch.allclose(archive.generate(latents), expected.generate(latents), atol=1e-6)
    assert not archive.training


def test_an_export_takes_the_figures_and_the_pictures_of_the_weights_before_away(vae_run, dataset, tmp_path):
    config = vae_run.model_copy(update={"models_dir": tmp_path})
    shutil.copytree(vae_run.models_dir / "vae", tmp_path / "vae")
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    manifest = assert_whole(directory)
    assert manifest.quality is None
    assert set(contents(directory)) == {archive.file for archive in manifest.archives.values()} | EXPORTED
    assert "Not measured yet." in (directory / "card.md").read_text()


def test_a_new_export_replaces_the_manifest_and_removes_the_old_archive(make_vae, dataset):
    config = make_vae()
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    old = assert_whole(directory)
    (directory / ".vae-0123456789ab.pt.abcd1234.partial").write_bytes(b"half an archive, of an export that was killed")
    assert export(config, vae(config, seed=2), dataset, HISTORY) == directory
    new = assert_whole(directory)
    assert new.archives["float32"].digest != old.archives["float32"].digest
    assert {path.name for path in directory.glob("*.pt")} == {archive.file for archive in new.archives.values()}
    assert not list(directory.glob(".*"))


def test_a_full_disk_leaves_the_previous_checkpoint_untouched(make_vae, dataset):
    config = make_vae()
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    before = contents(directory)
    learner = vae(config, seed=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # half an archive
    try:
        with pytest.raises(OSError, match="too large"):
            export(config, learner, dataset, HISTORY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(directory) == before


@pytest.mark.parametrize("failing", ["archive", *sorted(EXPORTED)])
def test_whichever_write_fails_a_whole_checkpoint_is_there(make_vae, dataset, monkeypatch, failing):
    config = make_vae()
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
    assert not [name for name in contents(directory) if name.startswith(".")], "no temporary file is left"
    if failing in {"archive", "manifest.json"}:
        assert before.items() <= contents(directory).items(), "the switch was not reached"
    # And the next export mends it all.
    export(config, vae(config, seed=2), dataset, HISTORY)
    archives = {archive.file for archive in assert_whole(directory).archives.values()}
    assert set(contents(directory)) == archives | EXPORTED


@torch.no_grad()
def test_a_bfloat16_archive_ships_with_how_far_it_is_from_float32(vae_run, dataset):
    directory, manifest = checkpoint_of(vae_run)
    archive = manifest.archives["bfloat16"]
    lower, reference = (torch.jit.load(directory / manifest.archives[key].file) for key in ("bfloat16", "float32"))
    assert archive.deviation is not None
    assert manifest.archives["float32"].deviation is None
    assert archive.deviation.images == training.export.DEVIATION_IMAGES
    latents = draw_latents(reference, manifest, balanced(64, 10), vae_run.seed)
    difference = (lower.generate(latents) - reference.generate(latents)).abs()
    assert archive.deviation.largest == pytest.approx(float(difference.max()), rel=1e-3)
    assert archive.deviation.mean == pytest.approx(float(difference.mean()), rel=1e-3)
    images = to_unit_range(dataset.test_images[:4])
    assert all(torch.equal(a, b) for a, b in zip(lower.encode(images), reference.encode(images), strict=True))


@pytest.mark.parametrize("difference", [2.01 / 255, float("nan")])
def test_a_bfloat16_archive_beyond_the_bound_does_not_ship(make_vae, dataset, monkeypatch, difference):
    monkeypatch.setattr(training.export, "deviation", lambda *_: (difference, 0.001))
    directory = export(make_vae(), vae(make_vae(), seed=1), dataset, HISTORY)
    assert set(assert_whole(directory).archives) == {"float32"}


class Drifting(nn.Module):
    """Computes something else once it is scripted, as a miscompiled network would."""

    def __init__(self, drift: float, encoded_drift: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.drift, self.encoded_drift = drift, encoded_drift

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        image = torch.sigmoid(self.weight * latents[:, :1, None, None]).expand(-1, 1, 28, 28)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            image = image + self.drift
        return image

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.flatten(1)[:, :16]
        log_variance = mean
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            log_variance = mean + self.encoded_drift
        return mean, log_variance


class DriftingLearner(Learner):
    batches_per_step, latent_dim = 1, 16

    def __init__(self, drift: float = 0.0, encoded_drift: float = 0.0) -> None:
        super().__init__()
        self.drifting = Drifting(drift, encoded_drift)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def archive(self, training_set=None) -> nn.Module:
        return self.drifting

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        return archive


@pytest.mark.parametrize(
    ("learner", "capability"),
    [
        (DriftingLearner(drift=2e-4), "generate"),
        (DriftingLearner(drift=float("nan")), "generate"),
        (DriftingLearner(encoded_drift=2e-3), "encode"),
        (DriftingLearner(encoded_drift=float("nan")), "encode"),
        (DriftingLearner(encoded_drift=float("inf")), "encode"),
    ],
)
def test_an_archive_that_computes_something_else_is_never_written(make_vae, dataset, learner, capability):
    config = make_vae()
    with pytest.raises(ExportMismatch, match=f"^{capability} differs by"):
        export(config, learner, dataset, HISTORY)
    assert not config.models_dir.exists()


def test_a_previous_checkpoint_outlives_a_refused_export(make_vae, dataset):
    config = make_vae()
    directory = export(config, vae(config, seed=1), dataset, HISTORY)
    before = contents(directory)
    with pytest.raises(ExportMismatch):
        export(config, DriftingLearner(drift=1), dataset, HISTORY)
    assert contents(directory) == before


def test_a_difference_within_the_bound_is_let_through(dataset):
    learner = DriftingLearner(drift=5e-5, encoded_drift=5e-4)
    eager = learner.archive()
    _, archive = script(eager)
    assert set(golden_cases(eager, archive, learner, dataset)) == {"generate", "encode"}


def test_a_diverged_network_is_not_exported(make_vae, dataset):
    config = make_vae()
    learner = vae(config, seed=1)
    nn.init.constant_(next(learner.average.parameters()), float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ExportMismatch, match="not a number"):
        export(config, learner, dataset, HISTORY)
    assert not config.models_dir.exists()


def test_the_source_commit_is_a_commit_or_unknown(monkeypatch, tmp_path):
    assert re.fullmatch("unknown|[0-9a-f]{40}(-dirty)?", source_commit())
    with monkeypatch.context() as context:
        context.setenv("PATH", str(tmp_path))  # no git
        assert source_commit() == "unknown"
    with monkeypatch.context() as context:
        context.setattr(training.export, "__file__", str(tmp_path / "export.py"))  # no repository
        assert source_commit() == "unknown"

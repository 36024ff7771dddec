"""Whole runs on synthetic strokes: their files and their seeds."""

import json

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.conftest import STEPS, manifest_of, rows_of, same, train_and_crash, weights
from training.families.vae import VaeLearner
from training.state import read_state
from training.trainer import export_run, train


@pytest.mark.usefixtures("no_export")
def test_the_choices_that_a_run_resolved_are_in_its_config(tiny, dataset):
    config = tiny("vae", precision="auto", device="auto")
    train(config, dataset=dataset)
    saved = json.loads((config.run_dir / "config.json").read_text())
    assert saved["precision"] in {"float32", "bfloat16"}
    assert torch.device(saved["device"]).type in {"cpu", "cuda", "mps"}
    assert saved == read_state(config)["config"]


@pytest.mark.parametrize(
    ("fixture", "header", "epochs"),
    [
        ("vae_run", "epoch,negative_elbo,kl_divergence,spread,separation", 3),
        ("gan_run", "epoch,discriminator,generator,spread,separation", 1),
    ],
)
def test_a_run_writes_metrics_curves_and_a_sample_grid_per_epoch(request, fixture, header, epochs):
    run = request.getfixturevalue(fixture)
    assert (run.run_dir / "metrics.csv").read_text().splitlines()[0] == header
    assert [row["epoch"] for row in rows_of(run)] == [str(number) for number in range(1, epochs + 1)]
    with Image.open(run.run_dir / "curves.png") as image:
        image.load()
        assert image.format == "PNG"
    grids = sorted((run.run_dir / "samples").iterdir())
    assert [path.name for path in grids] == [f"epoch-{number:04d}.png" for number in range(1, epochs + 1)]
    for path in grids:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("PNG", "L", (448, 448))
    assert len({path.read_bytes() for path in grids}) == epochs


@pytest.mark.usefixtures("no_export")
def test_metrics_are_means_over_the_steps_of_an_epoch_and_images_keep_their_labels(tiny, dataset, monkeypatch):
    seen: list[dict[str, float]] = []
    step = VaeLearner.step

    def watched(self: VaeLearner, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        for image, label in zip((images[0] * 255).round().to(torch.uint8), labels[0], strict=True):
            (row,) = (dataset.train_images == image).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
            assert dataset.train_labels[row] == label
        losses = step(self, images, labels)
        seen.append({name: float(value) for name, value in losses.items()})
        return losses

    monkeypatch.setattr(VaeLearner, "step", watched)
    config = tiny("vae", epochs=1, batch_size=32, train_images=100)
    train(config, dataset=dataset)
    assert len(seen) == 3  # the last four images do not fill a batch
    for name in ("negative_elbo", "kl_divergence"):
        assert float(rows_of(config)[0][name]) == pytest.approx(sum(losses[name] for losses in seen) / 3, rel=1e-5)


def test_a_run_in_bfloat16_keeps_its_weights_and_its_archive_in_float32(tiny, dataset):
    config = tiny("vae", precision="bfloat16")
    train(config, dataset=dataset)
    assert {tensor.dtype for tensor in weights(config).values() if tensor.is_floating_point()} == {torch.float32}
    archive = torch.jit.load(next((config.models_dir / "vae").glob("*.pt")))
    assert archive.generate(torch.randn(2, 16)).dtype == torch.float32


@pytest.mark.usefixtures("no_export")
def test_another_seed_trains_other_weights(tiny, dataset):
    ours, other = (tiny("vae", name=f"seed-{seed}", seed=seed, epochs=1) for seed in (1, 2))
    train(ours, dataset=dataset)
    train(other, dataset=dataset)
    assert not same(weights(ours), weights(other))


def test_an_export_keeps_the_choices_of_the_run_that_it_does_not_set(tiny, dataset):
    train_and_crash(tiny("vae", note="of the run", evaluate_every=0), dataset, STEPS + 1)
    export_run(tiny("vae", note="of the export"), dataset)
    config = manifest_of(tiny("vae")).training.config
    assert (config["note"], config["evaluate_every"]) == ("of the export", 0)


def test_an_export_takes_epochs_and_device_from_the_state(copied, dataset):
    export_run(copied.model_copy(update={"epochs": 60, "device": "auto"}), dataset)
    record = manifest_of(copied).training
    assert record.config["epochs"] == record.epochs == 3
    assert record.config["device"] == "cpu"

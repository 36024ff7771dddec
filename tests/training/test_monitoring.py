"""Quality over the epochs is measured and recorded, and the networks of the best epoch are exported."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.training.conftest import manifest_of, rows_of, same, train_and_crash, weights
from training import monitoring, trainer
from training.evaluation.feature_extractor import ClassifierConfig, make_classifier
from training.evaluation.resizing import area_averages
from training.monitoring import EpochMonitor, TrainingFigures, losses_of
from training.state import read_state
from training.trainer import train

DISTANCES = [9.0, 4.0, 6.0]


@pytest.fixture
def measured(tiny, dataset, tmp_path, monkeypatch) -> Any:
    """A config of three epochs on data with a classifier, measured on few images."""
    monkeypatch.setattr(monitoring, "IMAGES", 64)
    monkeypatch.setattr(trainer, "evaluate_checkpoint", lambda *_: None)
    make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path / "runs"), dataset)
    return tiny("vae", epochs=3)


def distances(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Replace the measured Frechet distances of the epochs by these."""
    left: Iterator[float] = iter(values)
    figures = EpochMonitor.figures

    def given(self: Any, *arguments: Any, **options: Any) -> dict[str, float]:
        found = figures(self, *arguments, **options)
        if "frechet_distance" in found:
            found["frechet_distance"] = next(left)
        return found

    monkeypatch.setattr(EpochMonitor, "figures", given)


@pytest.mark.usefixtures("no_export")
def test_the_figures_of_every_epoch_are_in_the_table_and_in_the_state(measured, dataset):
    train(measured, dataset=dataset)
    rows = rows_of(measured)
    # The default prior of a vae has labels.
    figures = ["spread", "separation", "frechet_distance", "precision", "recall", "label_agreement"]
    assert list(rows[0])[3:] == figures
    for row in rows:
        assert float(row["frechet_distance"]) > 0
        assert 0 <= float(row["precision"]) <= 1
        assert 0 <= float(row["recall"]) <= 1
        assert 0 <= float(row["label_agreement"]) <= 1
    state = read_state(measured)
    assert [row["recall"] for row in state["history"]] == [float(row["recall"]) for row in rows]
    distance = [row["frechet_distance"] for row in state["history"]]
    assert state["best"]["epoch"] == distance.index(min(distance)) + 1
    assert state["best"]["frechet_distance"] == min(distance)


def test_the_epoch_with_the_lowest_distance_is_exported_and_recorded(measured, dataset, monkeypatch):
    with monkeypatch.context() as context:
        distances(context, DISTANCES)
        train(measured, dataset=dataset)
    record = manifest_of(measured).training
    assert (record.epochs, record.epoch) == (3, 2)
    assert record.losses == losses_of(read_state(measured)["history"][1])
    assert not same(read_state(measured)["best"]["modules"], weights(measured))
    best = read_state(measured)["best"]["modules"]["average.module.encoder.mean.bias"]
    archive = torch.jit.load(measured.models_dir / "vae" / manifest_of(measured).archives["float32"].file)
    assert torch.equal(archive.state_dict()["encode_network.mean.bias"], best)


@pytest.mark.usefixtures("no_export")
def test_the_best_epoch_is_kept_when_a_run_is_resumed(measured, dataset, monkeypatch):
    with monkeypatch.context() as context:
        distances(context, [4.0, 9.0])
        train_and_crash(measured, dataset, 11)
    distances(monkeypatch, [6.0])
    train(measured, resume=True, dataset=dataset)
    assert read_state(measured)["best"]["epoch"] == 1


@pytest.mark.usefixtures("no_export")
def test_without_finite_distances_no_epoch_is_the_best(measured, dataset, monkeypatch):
    distances(monkeypatch, [float("nan")] * 3)
    train(measured, dataset=dataset)
    assert read_state(measured)["best"] is None


@pytest.mark.usefixtures("no_export")
def test_only_epochs_that_are_due_and_the_last_one_have_figures(measured, dataset):
    train(measured.model_copy(update={"epochs": 4, "evaluate_every": 3}), dataset=dataset)
    assert [row["frechet_distance"] != "" for row in rows_of(measured)] == [False, False, True, True]


@pytest.mark.usefixtures("no_export")
@pytest.mark.usefixtures("measured")
def test_images_of_another_size_are_compared_with_area_averages_and_not_in_features(tiny, dataset):
    config = tiny("lapgan", size=7)
    train(config, dataset=dataset)
    row = rows_of(config)[-1]
    assert 0.1 < float(row["spread"]) < 10
    assert 0 < float(row["separation"]) < 10
    assert "frechet_distance" not in row
    assert read_state(config)["best"] is None


def test_the_figures_of_small_training_images_relative_to_themselves_are_1(dataset):
    small = area_averages(dataset.train_images, (1, 7, 7))
    figures = TrainingFigures.of(dataset, (1, 7, 7))
    assert figures.relative_spread(small[:2048], None) == pytest.approx(1)

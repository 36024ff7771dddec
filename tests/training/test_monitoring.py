"""Quality over the epochs: measured, recorded, and the best epoch's networks shipped."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from app.checkpoints.manifest import Manifest
from tests.training.conftest import Crash, at_step, crash, same, state_of
from training import trainer, watching
from training.evaluation.extractor import ClassifierConfig, make_classifier
from training.trainer import export_run, train
from training.watching import Watch, is_due, losses_of

DISTANCES = [9.0, 4.0, 6.0]


@pytest.fixture
def judged(tiny, dataset, tmp_path, monkeypatch) -> Any:
    """A config of three epochs of data with a classifier of its own, measured on few images."""
    monkeypatch.setattr(watching, "IMAGES", 64)
    monkeypatch.setattr(trainer, "evaluate_checkpoint", lambda *_: None)
    make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path / "runs"), dataset)
    return tiny("vae", epochs=3)


def distances(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Let epochs measure these Frechet distances, one after the other; all else is measured as it is."""
    left: Iterator[float] = iter(values)
    figures = Watch.figures

    def given(self: Any, *arguments: Any, **options: Any) -> dict[str, float]:
        measured = figures(self, *arguments, **options)
        if "frechet_distance" in measured:
            measured["frechet_distance"] = next(left)
        return measured

    monkeypatch.setattr(Watch, "figures", given)


def rows_of(config: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((config.run_dir / "metrics.csv").read_text())))


def manifest_of(config: Any) -> Manifest:
    return Manifest.model_validate_json((config.models_dir / config.name / "manifest.json").read_bytes())


def test_the_figures_of_every_epoch_are_in_the_table_and_in_the_state(judged, dataset):
    train(judged, dataset=dataset)
    rows = rows_of(judged)
    # A vae's default prior is fitted a class, so that its images have labels.
    figures = ["spread", "separation", "frechet_distance", "precision", "recall", "label_agreement"]
    assert list(rows[0])[3:] == figures
    for row in rows:
        assert float(row["frechet_distance"]) > 0
        assert 0 <= float(row["precision"]) <= 1
        assert 0 <= float(row["recall"]) <= 1
        assert 0 <= float(row["label_agreement"]) <= 1
    state = state_of(judged)
    assert [row["recall"] for row in state["history"]] == [float(row["recall"]) for row in rows]
    distance = [row["frechet_distance"] for row in state["history"]]
    assert state["best"]["epoch"] == distance.index(min(distance)) + 1
    assert state["best"]["frechet_distance"] == min(distance)


def test_the_epoch_with_the_lowest_distance_ships_and_the_manifest_says_which(judged, dataset, monkeypatch, tmp_path):
    with monkeypatch.context() as context:
        distances(context, DISTANCES)
        train(judged, dataset=dataset)
    record = manifest_of(judged).training
    assert (record.epochs, record.epoch) == (3, 2)
    assert record.losses == losses_of(state_of(judged)["history"][1])
    # The run of two epochs and a bit of the same schedule: what was stopped there has the weights that ship.
    stopped = judged.model_copy(update={"name": "stopped", "models_dir": tmp_path / "others", "save_steps": 1})
    with monkeypatch.context() as context:
        at_step(context, 13, crash)
        distances(context, DISTANCES)
        with pytest.raises(Crash):
            train(stopped, dataset=dataset)
    export_run(stopped, dataset)
    record = manifest_of(stopped).training
    assert (state_of(stopped)["done"], record.epochs, record.epoch, record.steps) == (2, 2, 2, 0)
    shipped = [
        torch.jit.load(config.models_dir / config.name / manifest_of(config).archives["float32"].file).state_dict()
        for config in (judged, stopped)
    ]
    assert same(*shipped)
    assert not same(state_of(judged)["best"]["modules"], state_of(judged)["learner"]["modules"])


def test_the_best_epoch_is_remembered_when_a_run_goes_on(judged, dataset, monkeypatch):
    with monkeypatch.context() as context:
        distances(context, [4.0, 9.0])
        at_step(context, 11, crash)
        with pytest.raises(Crash):
            train(judged, dataset=dataset)
    distances(monkeypatch, [6.0])
    train(judged, resume=True, dataset=dataset)
    assert manifest_of(judged).training.epoch == 1


@pytest.mark.parametrize("values", [[float("nan")] * 3, [float("inf")] * 3])
def test_distances_that_are_no_numbers_choose_nothing(judged, dataset, monkeypatch, values):
    distances(monkeypatch, values)
    train(judged, dataset=dataset)
    assert state_of(judged)["best"] is None
    assert manifest_of(judged).training.epoch == 3


def test_epochs_between_measurements_have_no_figures_and_the_last_always_does(judged, dataset):
    train(judged.model_copy(update={"epochs": 4, "evaluate_every": 3}), dataset=dataset)
    assert [row["frechet_distance"] != "" for row in rows_of(judged)] == [False, False, True, True]


def test_without_measurements_the_last_epoch_ships(judged, dataset):
    train(judged.model_copy(update={"evaluate_every": 0}), dataset=dataset)
    assert "frechet_distance" not in rows_of(judged)[0]
    assert manifest_of(judged).training.epoch == 3


def test_a_measurement_is_due_every_so_many_epochs_and_at_the_end(make_vae):
    config = make_vae(epochs=7, evaluate_every=3)
    assert [epoch for epoch in range(1, 8) if is_due(config, epoch)] == [3, 6, 7]
    assert not any(is_due(make_vae(epochs=3, evaluate_every=0), epoch) for epoch in range(1, 4))

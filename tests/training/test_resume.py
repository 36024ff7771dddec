"""Resumed runs equal, to the bit, runs that never stopped."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.checkpoints import files
from tests.conftest import contents
from tests.training.conftest import STEPS, Crash, at_step, crash, manifest_of, same, train_and_crash, weights
from training import monitoring, run, trainer
from training.config import TrainConfig
from training.evaluation.feature_extractor import ClassifierConfig, make_classifier
from training.families import families
from training.families.vae import VaeLearner
from training.run_lock import check_finished
from training.state import CannotResume, read_state, with_digest
from training.stopping import Stopped
from training.trainer import export_run, train


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """The places where two states differ."""
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            yield f"{path}: {sorted(ours.keys() ^ theirs.keys())}"
        for key in ours.keys() & theirs.keys():
            yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} and {len(theirs)}"
        for number, (our, their) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(our, their, f"{path}[{number}]")
    elif isinstance(ours, Tensor):
        if not torch.equal(ours, theirs):
            yield path
    elif ours != theirs:
        yield f"{path}: {ours} and {theirs}"


def differ(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """The places where the states of two runs differ, except their names."""
    states = read_state(ours), read_state(theirs)
    for state in states:
        del state["config"]["name"], state["cpu_s"]
    return list(differences(*states))


@pytest.fixture
def add_classifier(dataset, tmp_path, monkeypatch) -> Callable[[], object]:
    """Trains a classifier for the runs of `tiny`, which are measured on few images."""
    monkeypatch.setattr(monitoring, "IMAGES", 64)
    return lambda: make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path / "runs"), dataset)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(("family", "classifier"), [*((family, False) for family in families()), ("vae", True)])
def test_a_run_stopped_by_a_signal_at_any_step_and_resumed_equals_one_that_never_stopped(
    tiny, dataset, monkeypatch, add_classifier, family, classifier
):
    if classifier:
        add_classifier()
    whole, parts = tiny(family, name="whole"), tiny(family, name="parts")
    train(whole, dataset=dataset)
    first, second = sorted(random.Random(family).sample(range(1, 2 * STEPS), 2))
    for stop, steps in (first, first), (second, second - first):
        with monkeypatch.context() as context:
            at_step(context, steps, lambda: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(Stopped, match=f"stopped at step {stop} of {2 * STEPS}; the state is saved"):
                train(parts, resume=stop != first, dataset=dataset)
        state = read_state(parts)
        assert len(state["history"]) * STEPS + state["done"] == stop
        torch.manual_seed(12345)  # must not matter
    train(parts, resume=True, dataset=dataset)
    assert differ(parts, whole) == []
    reports = [path for path in whole.run_dir.rglob("*") if path.suffix in {".csv", ".png"}]
    assert len(reports) >= 2
    for path in reports:
        assert (parts.run_dir / path.relative_to(whole.run_dir)).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("no_export")
def test_a_crashed_run_is_resumed_from_the_last_state_that_was_due(tiny, dataset):
    whole, parts = tiny("vae", name="whole"), tiny("vae", name="parts", save_steps=2)
    train(whole, dataset=dataset)
    train_and_crash(parts, dataset, 4)
    assert read_state(parts)["done"] == 2
    # `save_steps` may change.
    train(parts.model_copy(update={"save_steps": None}), resume=True, dataset=dataset)
    assert differ(parts, whole) == []


def test_the_cpu_time_of_a_run_counts_over_its_stops(tiny, dataset):
    config = tiny("vae")
    train_and_crash(config, dataset, STEPS + 2)
    before = read_state(config)["cpu_s"]
    train(config, resume=True, dataset=dataset)
    assert 0 < before < read_state(config)["cpu_s"]


@pytest.mark.usefixtures("no_export")
def test_a_run_that_goes_on_from_a_state_without_its_cpu_time_has_none(tiny, dataset):
    config = tiny("vae")
    train_and_crash(config, dataset, STEPS + 2)
    state = read_state(config)
    del state["cpu_s"]
    (config.run_dir / "state.pt").write_bytes(with_digest(state))
    train(config, resume=True, dataset=dataset)
    assert read_state(config)["cpu_s"] is None


@pytest.mark.usefixtures("no_export")
def test_the_state_is_saved_every_save_minutes(tiny, dataset, monkeypatch):
    clock = iter(range(0, 10_000, 60))  # a minute passes between any two looks
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    config = tiny("vae", save_minutes=3)
    train_and_crash(config, dataset, 5)
    assert read_state(config)["done"] == 3


@pytest.mark.usefixtures("no_export")
def test_a_report_that_a_crash_interrupted_is_written_on_resume(tiny, dataset, monkeypatch):
    whole, parts = tiny("vae", name="whole"), tiny("vae", name="parts")
    train(whole, dataset=dataset)
    with monkeypatch.context() as context:
        context.setattr(run, "csv_bytes", lambda *_: crash())
        with pytest.raises(Crash):
            train(parts, dataset=dataset)
    assert not (parts.run_dir / "samples").exists()
    half = parts.run_dir / "samples" / f".epoch-0001.png.abcd1234{files.PARTIAL}"
    half.parent.mkdir()
    half.touch()
    train(parts, resume=True, dataset=dataset)
    assert not half.exists()
    for file in ("metrics.csv", "samples/epoch-0001.png", "samples/epoch-0002.png"):
        assert (parts.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes()


@pytest.mark.usefixtures("no_export")
def test_a_run_is_not_resumed_with_other_epochs(copied, dataset):
    with pytest.raises(CannotResume, match="made with another epochs"):
        train(copied.model_copy(update={"epochs": 9}), resume=True, dataset=dataset)


@pytest.mark.usefixtures("no_export")
def test_archives_and_previews_do_not_change_the_random_streams_of_training(tiny, dataset, monkeypatch):
    ours, theirs = tiny("vae", name="ours"), tiny("vae", name="theirs")
    train(ours, dataset=dataset)
    archive = VaeLearner.archive

    def drawing(self: VaeLearner, *arguments: Any) -> Any:
        torch.randn(9)
        random.seed(5)
        np.random.seed(5)
        return archive(self, *arguments)

    monkeypatch.setattr(VaeLearner, "archive", drawing)
    train(theirs, dataset=dataset)
    assert differ(ours, theirs) == []


@pytest.mark.usefixtures("no_export")
def test_measuring_quality_does_not_change_training(tiny, dataset, add_classifier):
    without, asked, unasked = tiny("vae", name="without"), tiny("vae", name="asked"), tiny("vae", name="unasked")
    train(without, dataset=dataset)
    add_classifier()
    train(asked, dataset=dataset)
    train(unasked.model_copy(update={"evaluate_every": 0}), dataset=dataset)
    assert "recall" in read_state(asked)["history"][0]
    for config in (asked, unasked):
        for part in ("learner", "processes"):
            assert list(differences(read_state(config)[part], read_state(without)[part])) == []


@pytest.mark.usefixtures("no_export")
def test_a_run_that_crashes_while_it_saves_leaves_the_state_before_and_no_partial_file(tiny, dataset, monkeypatch):
    whole, parts = tiny("vae", name="whole"), tiny("vae", name="parts", save_steps=1)
    train(whole, dataset=dataset)
    replace, saves = os.replace, iter(range(1, 4))

    def crash_at_the_third_save(source: str, target: Path) -> None:
        if target.name == "state.pt" and next(saves) == 3:
            crash()
        replace(source, target)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", crash_at_the_third_save)
        with pytest.raises(Crash):
            train(parts, dataset=dataset)
    assert read_state(parts)["done"] == 2
    (parts.run_dir / f".state.pt.abcd1234{files.PARTIAL}").touch()  # as a process leaves it that is killed
    train(parts, resume=True, dataset=dataset)
    assert same(weights(parts), weights(whole))
    assert not list(parts.run_dir.glob(f".*{files.PARTIAL}"))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"learning_rate": 1e-2, "ema_decay": 0.6, "train_images": 64}, "ema_decay, learning_rate, train_images"),
        ({"precision": "bfloat16", "family": "cvae"}, "family, precision"),
    ],
)
def test_resuming_with_another_config_names_the_changes_and_writes_nothing(copied, dataset, changes, names):
    before = contents(copied.runs_dir)
    with pytest.raises(CannotResume) as caught:
        train(copied.model_copy(update=changes), resume=True, dataset=dataset)
    assert str(caught.value).endswith(f"was made with another {names}")
    assert contents(copied.runs_dir) == before
    assert not copied.models_dir.exists()


class Code:
    def __reduce__(self):
        return exec, ("raise AssertionError('the state ran code')",)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the digest": lambda path: flip(path, 7),
    "a bit of the structure": lambda path: flip(path, 100),
    "a bit of a weight": lambda path: flip(path, path.stat().st_size // 2),
    "a bit at the end": lambda path: flip(path, -1),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another format": lambda path: path.write_text("epochs = 5\n"),
    "no digest": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2]),
    "code": lambda path: path.write_bytes(with_digest({"code": Code()})),
    "other keys": lambda path: path.write_bytes(with_digest({"config": {}})),
    "a directory": replace_by_directory,
    "a pipe": replace_by_pipe,
}


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_with_its_path_by_every_command(copied, dataset, damage):
    path = copied.run_dir / "state.pt"
    DAMAGES[damage](path)
    for command in (lambda: train(copied, resume=True, dataset=dataset), lambda: export_run(copied, dataset)):
        with pytest.raises(CannotResume, match=str(path)):
            command()
    with pytest.raises(CannotResume, match=str(path)):
        check_finished(copied)


def test_a_state_of_other_networks_is_refused(copied, dataset):
    state = read_state(copied)
    state["learner"]["modules"].popitem()
    (copied.run_dir / "state.pt").write_bytes(with_digest(state))
    with pytest.raises(CannotResume, match="cannot be restored"):
        train(copied, resume=True, dataset=dataset)


def test_a_state_of_other_data_is_refused(copied, dataset):
    with pytest.raises(CannotResume, match="made with other data than mnist holds"):
        train(copied, resume=True, dataset=replace(dataset, digest="1" * 64))


@pytest.mark.usefixtures("no_export")
def test_a_state_of_several_processes_is_not_resumed_by_one(copied, dataset):
    state = read_state(copied)
    state["processes"] *= 2
    (copied.run_dir / "state.pt").write_bytes(with_digest(state))
    with pytest.raises(CannotResume, match="made by 2 processes, not 1"):
        train(copied, resume=True, dataset=dataset)


def test_the_export_of_a_run_stopped_within_an_epoch_records_its_steps(tiny, dataset, monkeypatch):
    config = tiny("vae")
    with monkeypatch.context() as context:
        at_step(context, STEPS + 3, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped):
            train(config, dataset=dataset)
    monkeypatch.setattr(trainer, "evaluate_checkpoint", lambda *_: None)
    export_run(config, dataset)
    record = manifest_of(config).training
    assert (record.epochs, record.epoch, record.steps) == (1, 1, 3)


def test_a_second_signal_ends_the_run_at_once(tiny, dataset, monkeypatch):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(monkeypatch, 2, twice)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tiny("vae"), dataset=dataset)
    finally:
        signal.signal(signal.SIGINT, before)

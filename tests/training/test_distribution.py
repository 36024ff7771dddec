"""Two processes of one run, started by torchrun on the CPU: what they share, and what they leave."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from tests.training.conftest import places, same
from training import run, trainer
from training.config import TrainConfig
from training.data import Dataset, TooFewImages, epoch_batches, to_unit_range
from training.distribution import Processes
from training.families import families
from training.families.vae import VaeConfig
from training.run import check_batch
from training.trainer import train

BATCH, STEPS = 8, 3  # of an epoch


def options(root: Path, family: str, **others: Any) -> dict[str, Any]:
    fixed = {"epochs": 2, "batch_size": BATCH, "train_images": BATCH * STEPS, "device": "cpu", "precision": "float32"}
    return {"family": family, "tensorboard": False} | fixed | places(root) | others


def torchrun(root: Path, dataset: Dataset, jobs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Two processes that do the jobs one after the other."""
    torch.save(vars(dataset), root / "dataset.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests/training/part_of_a_run.py"), str(root), json.dumps(jobs, default=str)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=600)


def left(root: Path, name: str) -> list[dict[str, Any]]:
    """What both processes left of a job."""
    return [torch.load(root / f"{name}-{rank}.pt") for rank in range(2)]


def state_of(root: Path, name: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(root / "runs" / "0" / name / "state.pt", weights_only=True)
    return state


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """Where two processes have finished a run of every family, and one of plain gradient descent."""
    root = tmp_path_factory.mktemp("processes")
    jobs: list[dict[str, Any]] = [{"config": options(root, family, name=family)} for family in families()]
    jobs.append({"config": options(root, "vae", name="plain"), "plain": True})
    done = torchrun(root, dataset, jobs)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("family", families())
def test_weights_averages_and_statistics_stay_the_same_to_the_bit(root, family):
    ours, theirs = left(root, family)
    assert any("average" in name for name in ours["modules"])
    assert same(ours["modules"], theirs["modules"])
    assert same(ours["modules"], state_of(root, family)["learner"]["modules"])


@pytest.mark.parametrize("family", families())
def test_each_process_takes_its_own_half_of_the_rows_that_one_would_take(root, dataset, family):
    ours, theirs = left(root, family)
    images = to_unit_range(dataset.train_images[: BATCH * STEPS])
    streams = len(ours["rows"][0])
    expected = [images[rows] for epoch in range(2) for rows in epoch_batches(len(images), BATCH, streams, 0, epoch)]
    taken = [torch.cat(halves, dim=1) for halves in zip(ours["rows"], theirs["rows"], strict=True)]
    assert len(taken) == len(expected) == 2 * STEPS
    assert all(torch.equal(one, other) for one, other in zip(taken, expected, strict=True))


def test_each_process_draws_noise_of_its_own(root):
    ours, theirs = left(root, "vae")
    assert not torch.equal(ours["noise"], theirs["noise"])


def test_only_the_first_process_writes(root):
    assert (root / "runs" / "0" / "vae" / "state.pt").is_file()
    assert not (root / "runs" / "1").exists()


def test_steps_that_depend_on_images_alone_are_those_of_one_process_with_the_whole_batch(
    root, dataset, tmp_path, monkeypatch
):
    # Equal but for rounding: the sum over a batch is taken in two halves.
    from tests.training.part_of_a_run import Plain  # noqa: PLC0415 - the file is a program, too

    learners: list[Plain] = []

    def build(*_: Any) -> Plain:
        learners.append(Plain())
        return learners[0]

    monkeypatch.setattr(run, "build_learner", build)
    monkeypatch.setattr(trainer, "export", lambda *_: None)
    monkeypatch.setattr(trainer, "evaluate_checkpoint", lambda *_: None)
    config = VaeConfig(**options(tmp_path, "vae", name="plain"))
    train(config, dataset=dataset)
    ours: dict[str, Tensor] = left(root, "plain")[0]["modules"]
    torch.manual_seed(config.seed)
    start = Plain().state_dict()
    for name, weight in learners[0].state_dict().items():
        assert torch.allclose(ours[name], weight, atol=1e-6), name
        assert not torch.allclose(start[name], weight, atol=1e-4), name
    losses = [row["error"] for row in state_of(root, "plain")["history"]]
    alone = torch.load(config.run_dir / "state.pt", weights_only=True)["history"]
    assert losses == pytest.approx([row["error"] for row in alone], rel=1e-5)


def test_a_signal_to_one_stops_all_and_the_resumed_run_is_the_one_that_never_stopped(root, dataset, tmp_path):
    parts = options(tmp_path, "gan", name="gan")
    done = torchrun(tmp_path, dataset, [{"config": parts, "stops_at": 2}])
    assert done.returncode == 0, done.stderr
    assert [process["stopped"][:22] for process in left(tmp_path, "gan")] == ["stopped at step 2 of 6"] * 2
    assert len(state_of(tmp_path, "gan")["processes"]) == 2
    done = torchrun(tmp_path, dataset, [{"config": parts, "resume": True}])
    assert done.returncode == 0, done.stderr
    for ours, whole in zip(left(tmp_path, "gan"), left(root, "gan"), strict=True):
        assert same(ours["modules"], whole["modules"])
        assert torch.equal(ours["noise"], whole["noise"])
    assert state_of(tmp_path, "gan")["history"] == state_of(root, "gan")["history"]


def test_a_process_that_dies_ends_the_run_and_leaves_the_last_state(dataset, tmp_path):
    config = options(tmp_path, "vae", name="vae", save_steps=1)
    done = torchrun(tmp_path, dataset, [{"config": config, "dies_at": 3}])
    assert done.returncode != 0
    assert "exitcode: 17" in " ".join(done.stderr.replace("exitcode  :", "exitcode:").split())
    assert state_of(tmp_path, "vae")["done"] == 2
    assert not list(tmp_path.glob("vae-*.pt")), "neither went on alone"


def test_a_batch_that_cannot_be_shared_alike_is_refused(make_vae, dataset):
    config: TrainConfig = make_vae(batch_size=31)
    with pytest.raises(TooFewImages, match="a batch of 31 cannot be shared equally by 2 processes"):
        check_batch(config, dataset, Processes(torch.device("cpu"), 0, 2))


def test_shares_of_a_batch_are_disjoint_and_whole():
    rows = next(islice(epoch_batches(40, 12, 3, 0, 0), 1))
    shares = [Processes(torch.device("cpu"), rank, 3).own_rows(rows) for rank in range(3)]
    assert {share.shape for share in shares} == {(3, 4)}
    assert torch.equal(torch.cat(shares, dim=1), rows)

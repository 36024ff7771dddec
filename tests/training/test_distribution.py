"""Runs in two processes on the CPU, started by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from tests.training.conftest import places, same, weights
from tests.training.distributed_worker import Plain
from training import run
from training.data import Dataset, TooFewImages, epoch_batches, to_unit_range
from training.distribution import Processes
from training.families.vae import VaeConfig
from training.run import check_batch
from training.state import read_state
from training.trainer import train

BATCH, STEPS = 8, 3  # of an epoch


def job(root: Path, family: str, name: str, results: str = "", **others: Any) -> dict[str, Any]:
    """A job of the worker, for a run of two epochs."""
    sizes = {"epochs": 2, "batch_size": BATCH, "train_images": BATCH * STEPS, "save_steps": 1}
    sizes |= {"channels": 16} if family == "gan" else {}
    fixed = {"device": "cpu", "precision": "float32", "tensorboard": False, **places(root)}
    return {"config": {"family": family, "name": name} | sizes | fixed, "results": results or name} | others


def torchrun(root: Path, dataset: Dataset, jobs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Run jobs one after the other in two processes."""
    torch.save(vars(dataset), root / "dataset.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests/training/distributed_worker.py"), str(root), json.dumps(jobs, default=str)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=600)


def results(root: Path, name: str) -> list[dict[str, Any]]:
    """The results of a job in each process."""
    return [torch.load(root / f"{name}-{rank}.pt") for rank in range(2)]


def state_of(root: Path, name: str) -> dict[str, Any]:
    return read_state(VaeConfig(name=name, runs_dir=root / "runs" / "0"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """The directory of runs that torchrun started: a GAN, plain gradient descent, a resumed run and one that failed."""
    root = tmp_path_factory.mktemp("processes")
    jobs = [job(root, "gan", "gan"), job(root, "vae", "plain", plain=True)]
    jobs.append(job(root, "gan", "parts", "stopped", stops_at=2))
    jobs.append(job(root, "gan", "parts", "resumed", resume=True))
    jobs.append(job(root, "vae", "dies", dies_at=3))
    done = torchrun(root, dataset, jobs)
    assert done.returncode != 0
    assert (root / "resumed-0.pt").is_file(), done.stderr
    return root


def test_weights_averages_and_statistics_are_bit_identical_in_all_processes(root):
    first, second = results(root, "gan")
    assert any("average" in name for name in first["modules"])
    assert same(first["modules"], second["modules"])
    assert same(first["modules"], state_of(root, "gan")["learner"]["modules"])


def test_the_processes_share_the_rows_of_a_single_process(root, dataset):
    first, second = results(root, "gan")
    images = to_unit_range(dataset.train_images[: BATCH * STEPS])
    streams = len(first["rows"][0])
    expected = [images[rows] for epoch in range(2) for rows in epoch_batches(len(images), BATCH, streams, 0, epoch)]
    used = [torch.cat(halves, dim=1) for halves in zip(first["rows"], second["rows"], strict=True)]
    assert len(used) == len(expected) == 2 * STEPS
    assert all(torch.equal(one, other) for one, other in zip(used, expected, strict=True))


def test_each_process_draws_its_own_noise_and_only_the_first_writes_files(root):
    first, second = results(root, "gan")
    assert not torch.equal(first["noise"], second["noise"])
    assert (root / "runs" / "0" / "gan" / "state.pt").is_file()
    assert not (root / "runs" / "1").exists()


@pytest.mark.usefixtures("no_export")
def test_steps_that_depend_only_on_images_equal_those_of_a_single_process(root, dataset, tmp_path, monkeypatch):
    # Except for rounding, as the sum over a batch is computed in two halves.
    monkeypatch.setattr(run, "build_learner", lambda *_: Plain())
    config = VaeConfig(**job(tmp_path, "vae", "plain")["config"])
    train(config, dataset=dataset)
    distributed: dict[str, Tensor] = results(root, "plain")[0]["modules"]
    torch.manual_seed(config.seed)
    start = Plain().state_dict()
    for name, weight in weights(config).items():
        assert torch.allclose(distributed[name], weight, atol=1e-6), name
        assert not torch.allclose(start[name], weight, atol=1e-4), name
    alone = read_state(config)["history"]
    losses = [row["error"] for row in state_of(root, "plain")["history"]]
    assert losses == pytest.approx([row["error"] for row in alone], rel=1e-5)


def test_a_signal_to_one_process_stops_all_and_the_resumed_run_equals_an_uninterrupted_one(root):
    assert ["step 2 of 6" in process["stopped"] for process in results(root, "stopped")] == [True, True]
    for resumed, whole in zip(results(root, "resumed"), results(root, "gan"), strict=True):
        assert same(resumed["modules"], whole["modules"])
        assert torch.equal(resumed["noise"], whole["noise"])
    assert state_of(root, "parts")["history"] == state_of(root, "gan")["history"]


def test_a_process_that_dies_ends_the_run_and_keeps_the_last_state(root):
    assert state_of(root, "dies")["done"] == 2
    assert not list(root.glob("dies-*.pt"))


def test_a_batch_that_cannot_be_divided_equally_is_refused(tiny, dataset):
    config = tiny("vae", batch_size=21)
    with pytest.raises(TooFewImages, match="21"):
        check_batch(config, dataset, Processes(torch.device("cpu"), 0, 2))

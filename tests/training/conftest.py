"""Small synthetic digits and finished runs on them: real networks, tiny data, no network access."""

import csv
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torchvision import datasets  # type: ignore[import-untyped]

from app.checkpoints.manifest import Manifest
from app.checkpoints.store import read_manifest
from training import export, mnist, monitoring, run, trainer
from training.config import TrainConfig
from training.curves import curves_png
from training.data import Dataset, to_unit_range
from training.evaluation import accuracy
from training.families import batch_norm, build_learner, dbn, families
from training.families.gan import GanConfig
from training.families.vae import VaeConfig
from training.learner import TrainingSet
from training.state import read_state
from training.trainer import train

Module = TypeVar("Module", bound=nn.Module)
TRAIN_IMAGES, TEST_IMAGES = 192, 32
STEPS = 5  # per epoch of a tiny run
# Choices of families with larger networks.
SMALL = {
    "channels": 16,
    "layers": 2,
    "detail_channels": 16,
    "detail_layers": 1,
    "width": 16,
    "depth": 1,
    "solver_steps": 3,
}


def strokes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Blurry straight strokes, uint8 `(count, 1, 28, 28)`, labelled by their direction, int64 `(count,)`."""
    source = torch.Generator().manual_seed(seed)
    centre = 10 + 8 * torch.rand(count, 2, generator=source)
    angle = math.pi * torch.rand(count, generator=source)
    half = 3 + 5 * torch.rand(count, generator=source)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]  # (count, 28, 28)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    beyond = (along.abs() - half[:, None, None]).clamp(min=0)
    ink = torch.exp(-(across.square() + beyond.square()) / 2)
    ink[ink < 0.01] = 0  # the ground is black, as MNIST has it
    labels = (angle / math.pi * 10).long().clamp(max=9)
    return (ink * 255).round().to(torch.uint8)[:, None], labels


def weights(config: TrainConfig) -> dict[str, Tensor]:
    """All weights, averages and buffers that a run saved last."""
    modules: dict[str, Tensor] = read_state(config)["learner"]["modules"]
    return modules


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are bit for bit the same."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def lively(module: Module) -> Module:
    """The module in eval mode with random biases, scales and statistics: those of the start would hide errors."""
    torch.manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            assert each.running_mean is not None
            assert each.running_var is not None
            nn.init.normal_(each.weight, 1, 0.3)
            nn.init.normal_(each.running_mean, 0, 0.5)
            nn.init.uniform_(each.running_var, 0.3, 3)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.3)
    return module.eval()


class Crash(BaseException):
    """Simulates a lost machine."""


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[], None]) -> None:
    """Call `happen` within a step of the next run, counted from 1."""

    def watched(*arguments: Any) -> Any:
        learner = build_learner(*arguments)
        step, taken = learner.step, iter(range(1, 1000))

        def watched_step(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            if next(taken) == number:
                happen()
            return step(images, labels)

        learner.step = watched_step  # type: ignore[method-assign]
        return learner

    monkeypatch.setattr(run, "build_learner", watched)


def crash() -> None:
    raise Crash


def train_and_crash(config: TrainConfig, dataset: Dataset, step: int) -> None:
    """A run that crashes within a step, counted from 1."""
    with pytest.MonkeyPatch.context() as context:
        at_step(context, step, crash)
        with pytest.raises(Crash):
            train(config, dataset=dataset)


def manifest_of(config: TrainConfig) -> Manifest:
    """The manifest of the checkpoint that a run exported."""
    return read_manifest(config.models_dir / config.name / "manifest.json")


def rows_of(config: TrainConfig) -> list[dict[str, str]]:
    """The rows of a run's table of metrics."""
    return list(csv.DictReader((config.run_dir / "metrics.csv").read_text().splitlines()))


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Synthetic strokes in the form of MNIST."""
    return Dataset("strokes", "0" * 64, *strokes(TRAIN_IMAGES, seed=1), *strokes(TEST_IMAGES, seed=2))


@pytest.fixture(scope="session")
def training_set(dataset: Dataset) -> TrainingSet:
    """The training images and their labels."""
    return dataset.train_images, dataset.train_labels


@pytest.fixture(scope="session")
def images(dataset: Dataset) -> Tensor:
    """The training images in [0, 1]."""
    return to_unit_range(dataset.train_images)


def one_curve(history: list[dict[str, float]]) -> bytes:
    """A plot of the first loss, as PNG."""
    return curves_png([dict(list(row.items())[:2]) for row in history])


@pytest.fixture(scope="session", autouse=True)
def little_work() -> Iterator[None]:
    """Compare, monitor and classify fewer images, and plot one loss: plots take longer than tiny epochs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run, "curves_png", one_curve)
        monkeypatch.setattr(export, "DEVIATION_IMAGES", 8)
        monkeypatch.setattr(dbn, "inverse_temperatures", lambda: [0.0, 0.5, 1.0])
        monkeypatch.setattr(monitoring, "SPREAD_IMAGES", 64)
        monkeypatch.setattr(accuracy, "EPOCHS", 1)
        monkeypatch.setattr(batch_norm, "ROWS", 64)
        monkeypatch.setattr(batch_norm, "BATCHES", 1)
        monkeypatch.setattr("training.families.dbn.CHAIN_STEPS", 3)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as in the service: the work of a thread depends on the size of the batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def places(root: Path) -> dict[str, Path]:
    """The three directories of a run, all under `root`."""
    return {"data_dir": root / "data", "runs_dir": root / "runs", "models_dir": root / "models"}


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> VaeConfig:
    """A finished run of three epochs with its checkpoint. To be read only."""
    root = tmp_path_factory.mktemp("vae")
    config = VaeConfig(epochs=3, batch_size=32, ema_decay=0.5, device="cpu", seed=5, **places(root))
    train(config, dataset=dataset)
    return config


@pytest.fixture(scope="session")
def gan_run(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> GanConfig:
    """A finished run of one epoch with its checkpoint. To be read only."""
    root = tmp_path_factory.mktemp("gan")
    sizes: dict[str, Any] = {"epochs": 1, "batch_size": 8, "train_images": 16, "channels": 16}
    config = GanConfig(device="cpu", precision="float32", **sizes, **places(root))
    train(config, dataset=dataset)
    return config


def idx(array: Tensor) -> bytes:
    """An array of bytes in the IDX format: a magic number, big-endian sizes, the values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.to(torch.uint8).numpy().tobytes()


@pytest.fixture
def raw_files(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The four files of a tiny MNIST by name; the pinned digests are theirs."""
    files = {
        "train-images-idx3-ubyte": idx(dataset.train_images[:, 0]),
        "train-labels-idx1-ubyte": idx(dataset.train_labels),
        "t10k-images-idx3-ubyte": idx(dataset.test_images[:, 0]),
        "t10k-labels-idx1-ubyte": idx(dataset.test_labels),
    }
    assert files.keys() == mnist.MNIST_SHA256.keys()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist, "MNIST_SHA256", digests)
    return files


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torchvision's mirrors are an empty directory and PATH another; gives the directory of mirrors."""
    mirror, programs = tmp_path / "mirror", tmp_path / "programs"
    mirror.mkdir()
    programs.mkdir()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{mirror.as_uri()}/"])
    monkeypatch.setenv("PATH", str(programs))
    return mirror


@pytest.fixture
def copied(vae_run: VaeConfig, tmp_path: Path) -> VaeConfig:
    """A copy of a finished run."""
    runs = tmp_path / "copied"
    shutil.copytree(vae_run.run_dir, runs / vae_run.name)
    return vae_run.model_copy(update={"runs_dir": runs, "models_dir": tmp_path / "models"})


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Configs of two epochs of five steps, of any family."""

    def make(family: str, **options: Any) -> TrainConfig:
        defaults: dict[str, Any] = {"epochs": 2, "batch_size": 4, "train_images": 4 * STEPS + 1, "seed": 3}
        fixed: dict[str, Any] = {"device": "cpu", "precision": "float32", "tensorboard": False, **places(tmp_path)}
        config = families()[family].config
        small = {name: value for name, value in SMALL.items() if name in config.model_fields}
        return config(**(defaults | small | fixed | options))

    return make


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without an export, which takes longer than all their steps."""
    monkeypatch.setattr(trainer, "export", lambda *_: None)
    monkeypatch.setattr(trainer, "evaluate_checkpoint", lambda *_: None)

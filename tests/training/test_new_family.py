"""A family is one file: two toy families train, export, are evaluated and served without any other change."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.api.reading import image
from tests.conftest import serving
from tests.training.conftest import places
from training import families as package
from training.__main__ import parser
from training.config import TrainConfig
from training.data import Dataset
from training.families import families
from training.trainer import train

SIZE = 12

COMMON = """
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from training.config import NAME_PATTERN, TrainConfig
from training.families import Family
from training.learner import Learner
"""

# Images from three latents, as a linear function; no labels, no option of its own.
SPECKS = (
    COMMON
    + '''
class SpecksConfig(TrainConfig):
    """A linear generator."""

    family: Literal["specks"] = "specks"
    name: str = Field("specks", pattern=NAME_PATTERN)


class SpecksLearner(Learner):
    latent_dim = 3

    def __init__(self, config, data, total_steps):
        super().__init__(data)
        pixels = data.image[1] * data.image[2]
        self.generator = nn.Sequential(nn.Linear(3, pixels), nn.Sigmoid(), nn.Unflatten(1, data.image))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def step(self, images, labels):
        fakes = self.generator(torch.randn(images.shape[1], 3))
        loss = (fakes.mean(0) - images[0].mean(0)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"distance": loss.detach()}

    def networks(self, training_set):
        return {"generate": self.generator}


FAMILY = Family("specks", SpecksConfig, SpecksLearner)
'''
)

# A code of five numbers of an image of half the size; nothing makes images.
CODES = (
    COMMON
    + '''
class CodesConfig(TrainConfig):
    """A linear encoder."""

    family: Literal["codes"] = "codes"
    name: str = Field("codes", pattern=NAME_PATTERN)


class CodesLearner(Learner):
    latent_dim = 5

    def __init__(self, config, data, total_steps):
        super().__init__(data)
        _, height, width = data.image
        self.input_shape = (1, height // 2, width // 2)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(height * width // 4, 5))
        self.decoder = nn.Linear(5, height * width)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def step(self, images, labels):
        codes = self.encoder(nn.functional.avg_pool2d(images[0], 2))
        loss = (self.decoder(codes) - images[0].flatten(1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"error": loss.detach()}

    def networks(self, training_set):
        return {"embed": self.encoder}


FAMILY = Family("codes", CodesConfig, CodesLearner)
'''
)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both files, in a folder on the path of the families."""
    folder = tmp_path_factory.mktemp("families")
    for name, source in {"specks": SPECKS, "codes": CODES}.items():
        (folder / f"{name}.py").write_text(source)
    package.__path__.append(str(folder))
    yield
    package.__path__.remove(str(folder))
    for name in ("specks", "codes"):
        sys.modules.pop(f"training.families.{name}", None)
        vars(package).pop(name, None)


@pytest.fixture(scope="module")
def crosses() -> Dataset:
    """Unlabelled images of 12x12 pixels: a horizontal and a vertical line each."""
    places = torch.randint(SIZE, (2, 60), generator=torch.Generator().manual_seed(0))
    images = torch.zeros(60, 1, SIZE, SIZE, dtype=torch.uint8)
    for number, (row, column) in enumerate(places.T):
        images[number, 0, row] = 255
        images[number, 0, :, column] = 255
    labels = torch.zeros(60, dtype=torch.int64)
    return Dataset("crosses", "c" * 64, images[:40], labels[:40], images[40:], labels[40:], classes=(), box=None)


@pytest.fixture(scope="module")
def trained(toys: None, crosses: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainConfig]:
    """A finished run of each toy family, with its checkpoint."""
    root = tmp_path_factory.mktemp("toys")
    configs = {}
    for name in ("specks", "codes"):
        config = families()[name].config(epochs=2, batch_size=10, device="cpu", **places(root))
        train(config, dataset=crosses)
        configs[name] = config
    return configs


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.suffix != ".pt"}


@pytest.mark.usefixtures("toys")
def test_a_family_is_found_by_its_file_and_has_its_commands():
    assert {"vae", "gan", "specks", "codes"} <= set(families())
    arguments = parser().parse_args(["train", "specks", "--seed", "3"])
    assert (arguments.family, arguments.seed) == ("specks", "3")


def test_a_generator_of_another_size_gets_figures_and_pictures(trained):
    config = trained["specks"]
    directory = config.models_dir / "specks"
    assert files(directory) == {
        "manifest.json", "card.md", "curves.png", "samples.png", "neighbours.png", "traversals.png",
        "examples.png", "film.png", "history.json",
    }  # fmt: skip
    assert files(config.run_dir / "samples") == {"epoch-0001.png", "epoch-0002.png"}
    card = (directory / "card.md").read_text()
    assert "distance" in card
    assert "near copies" in card


def test_a_model_that_makes_no_images_has_curves_and_a_card_and_no_samples(trained):
    config = trained["codes"]
    assert files(config.models_dir / "codes") == {
        "manifest.json", "card.md", "curves.png", "examples.png", "history.json",
    }  # fmt: skip
    assert not (config.run_dir / "samples").exists()
    assert (config.run_dir / "curves.png").is_file()
    assert (config.run_dir / "metrics.csv").read_text().splitlines()[0] == "epoch,error"


def test_the_toys_are_served(trained):
    with serving(models_dir=trained["specks"].models_dir) as client:
        models = {model["name"]: model for model in client.get("/models").json()["models"]}
        assert models["specks"]["latent_dim"] == 3
        assert "embed" in str(models["codes"])
        answer = client.post("/generate", json={"model": "specks", "n": 4, "seed": 1}, headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        assert image(answer.content).shape == (2 * SIZE, 2 * SIZE)
        refused = client.post("/generate", json={"model": "codes", "n": 1})
        assert refused.json()["code"] == "capability_missing"

"""TorchScript archives built from one network per capability."""

from io import BytesIO
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ROOT
from training.archive import EagerArchive, open_archive, script, without_source_positions

WIDTH = 300


class Labelled(nn.Module):
    """A network with two inputs and two outputs."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.scale * self.layer(images.flatten(1)) + labels[:, None]
        return codes, -codes


def archive_of(layer: nn.Linear) -> EagerArchive:
    """All share a layer; `generate` and `decode` have no parameter but its own."""
    generate, decode = nn.Sequential(layer, nn.Sigmoid()), nn.Sequential(layer, nn.Tanh())
    return EagerArchive({"generate": generate, "decode": decode, "encode": Labelled(layer)}).eval()


@pytest.fixture
def eager() -> Any:
    torch.manual_seed(0)
    return archive_of(nn.Linear(WIDTH, WIDTH))


@torch.no_grad()
def test_the_methods_of_an_archive_are_the_capabilities_and_equal_its_eager_twin(eager):
    archive: Any = open_archive(script(eager))
    rows, labels = torch.randn(3, WIDTH), torch.arange(3)
    for loaded in (archive, torch.jit.freeze(archive, preserved_attrs=["generate", "decode", "encode"])):
        assert torch.equal(loaded.generate(rows), eager.generate(rows))
        assert torch.equal(loaded.decode(rows), eager.decode(rows))
        pairs = zip(loaded.encode(rows, labels), eager.encode(rows, labels), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert not archive.training


def test_an_archive_names_no_path_of_the_machine_that_made_it(eager):
    content = script(eager)
    with ZipFile(BytesIO(content)) as file:
        assert not any(str(ROOT).encode() in file.read(name) for name in file.namelist())
    assert without_source_positions(content) == content


def test_weights_that_capabilities_share_are_stored_once(eager):
    weights = 4 * WIDTH * (WIDTH + 1)
    assert weights < len(script(eager)) < 1.1 * weights
    numbers = WIDTH * (WIDTH + 1)
    assert eager.parameter_counts() == {"generate and decode": numbers, "encode": numbers + 1}


@torch.no_grad()
def test_archives_of_equal_structure_have_their_own_weights(eager):
    other: Any = archive_of(nn.Linear(WIDTH, WIDTH))
    rows = torch.randn(2, WIDTH)
    first, second = (open_archive(script(each)) for each in (eager, other))
    assert torch.equal(first.generate(rows), eager.generate(rows))  # type: ignore[operator]
    assert torch.equal(second.generate(rows), other.generate(rows))  # type: ignore[operator]
    assert script(eager) == script(eager)

"""Networks as CUDA graphs."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from app.checkpoints.capabilities import Symbol
from app.inference.cuda import GraphedForward
from app.inference.latents import normal_rows, uniform_labels
from app.inference.model import load_models
from app.inference.runtime import Network, Runtime
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_graph_gives_the_rows_of_its_method_for_any_number_of_rows():
    device = torch.device("cuda")
    layer = torch.nn.Linear(3, 2).to(device)
    network = Network(GraphedForward(layer, device, 8), row_multiple=8)
    for size in (1, 5, 8, 9, 24):
        rows = normal_rows(0, 0, size, 3)
        (made,) = network.run(rows)
        assert made.dtype == np.float32
        assert made.shape == (size, 2)
        expected = layer(torch.from_numpy(rows).to(device)).detach().cpu().numpy()
        assert np.allclose(made, expected, atol=1e-5)


def test_outputs_are_not_overwritten_by_the_next_call():
    device = torch.device("cuda")
    forward = GraphedForward(torch.nn.Identity(), device, 4)
    (first,) = forward(torch.zeros(4, 3))
    forward(torch.ones(4, 3))
    assert torch.equal(first, torch.zeros(4, 3))


def test_rows_that_do_not_fill_whole_blocks_are_refused():
    forward = GraphedForward(torch.nn.Identity(), torch.device("cuda"), 4)
    for rows in (0, 3, 5):
        with pytest.raises(ValueError, match="do not fill blocks of 4"):
            forward(torch.zeros(rows, 3))


@pytest.mark.parametrize("max_rows", [1, 3, 8, 32])
def test_models_are_byte_identical_with_any_largest_batch(max_rows):
    for model in load_models(ROOT / "models", Runtime("cuda"), max_rows).values():
        assert all(model.byte_identical.values())


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_row_is_the_same_bits_in_every_batch_and_from_every_thread(precision):
    for model in load_models(ROOT / "models", Runtime("cuda", precision), 64).values():
        assert all(model.byte_identical.values())
        latents = normal_rows(3, 0, 64, *model.manifest.shape(Symbol.LATENT))
        labels = uniform_labels(3, 0, 64, max(1, len(model.manifest.classes)))
        (whole,) = model.run("generate", latents, labels)
        slices = [slice(first, first + size) for size in (1, 3, 8, 33, 64) for first in range(0, 64, size)]
        with ThreadPoolExecutor(4) as threads:
            made = threads.map(
                partial(model.run, "generate"), [latents[rows] for rows in slices], [labels[rows] for rows in slices]
            )
            for rows, (images,) in zip(slices, made, strict=True):
                assert np.array_equal(images, whole[rows])

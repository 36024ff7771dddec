"""Seeded means byte-identical: 200 images alone, in any company, and on any number of workers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Literal

import numpy as np
import pytest
import torch

from app.checkpoints.checks import golden_rows
from app.checkpoints.manifest import PIXEL_BOUND
from app.checkpoints.store import Model, load_models, read_manifest
from app.inference.latents import normal_rows
from app.inference.machine import computes_in_bfloat16
from app.inference.runtime import Inputs, Labelled, Network, Rows, Runtime
from tests.conftest import ROOT, serving
from tests.tiny_models import write_checkpoints

Precision = Literal["auto", "float32"]
SIZES = [*range(1, 34), 64]
IMAGES = 8192


def shipped() -> Iterator[tuple[str, Capability, Precision]]:
    """Model, capability and precision of every network that ships."""
    for path in sorted((ROOT / "models").glob("*/manifest.json")):
        manifest = read_manifest(path)
        precisions: tuple[Precision, ...] = ("auto", "float32") if "bfloat16" in manifest.archives else ("auto",)
        for capability in manifest.capabilities:
            for precision in precisions:
                yield manifest.name, capability, precision


def inputs_for(model: Model, capability: Capability, count: int) -> Inputs:
    """Rows of the kind that the capability takes, with labels where it takes them."""
    shape = model.manifest.shapes(capability)[0][0]
    rows = normal_rows(11, 0, count, int(np.prod(shape))).reshape(count, *shape)
    if len(shape) > 1:
        rows = np.clip(rows, 0, 1)
    golden = golden_rows(model.manifest.golden[capability])
    return Labelled(rows, np.resize(golden.labels, count)) if isinstance(golden, Labelled) else rows


def assert_rows_depend_on_nothing_else(network: Network, source: Inputs) -> None:
    """Each of 64 rows is the same bits alone, and in a batch of any size at any place."""
    alone = [network.compute([source[row : row + 1]])[0] for row in range(64)]
    for size in SIZES:
        for first in {0, (64 - size) // 2, 64 - size}:
            together = network.compute([source[first : first + size]])[0]
            for output, parts in zip(together, zip(*alone, strict=True), strict=True):
                assert np.array_equal(output, np.concatenate(parts[first : first + size])), f"{size} rows from {first}"


@cache
def models(precision: Precision) -> dict[str, Model]:
    """Those that ship."""
    return load_models(ROOT / "models", Runtime("cpu", precision), 8)


@pytest.mark.parametrize(("name", "capability", "precision"), list(shipped()))
def test_a_row_is_the_same_bits_in_a_batch_of_any_size_at_any_place(name, capability, precision):
    model = models(precision)[name]
    assert_rows_depend_on_nothing_else(model.networks[capability], inputs_for(model, capability, 64))


@pytest.mark.parametrize("model", ["vae", "gan"])
@pytest.mark.parametrize("workers", [1, 3])
def test_200_images_under_load_are_those_asked_alone(model, workers):
    with serving(workers=workers) as client:

        def ask(first: int, n: int) -> list[str]:
            answer = client.post("/generate", json={"model": model, "n": n, "seed": 7, "first": first})
            return [item["png"] for item in answer.json()["images"]]

        alone = [ask(index, 1)[0] for index in range(200)]
        spans = [(first, n) for n in (1, 3, 8, 33) for first in range(0, 200 - n, 2 * n)]
        with ThreadPoolExecutor(16) as callers:
            under_load = list(callers.map(lambda span: ask(*span), spans))
    for (first, n), images in zip(spans, under_load, strict=True):
        assert images == alone[first : first + n]


@pytest.fixture(scope="module")
def labelled_models(tmp_path_factory):
    """A directory of checkpoints that take labels."""
    directory = tmp_path_factory.mktemp("labelled")
    write_checkpoints(directory)
    return directory


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("cgan", "generate"),
        ("cgan", "discriminate"),
        ("cvae", "encode"),
        ("cvae", "decode"),
        ("fitted", "prior"),
        ("fitted", "generate"),
    ],
)
def test_a_labelled_row_is_the_same_bits_in_a_batch_of_any_size_at_any_place(labelled_models, name, capability):
    model = load_models(labelled_models, Runtime("cpu"), 8)[name]
    assert_rows_depend_on_nothing_else(model.networks[capability], inputs_for(model, capability, 64))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("cgan", {}),
        ("cgan", {"label": "balanced", "truncation": 1.5}),
        ("cvae", {"label": ["3", "8", "1"], "temperature": 0.7}),
        ("fitted", {}),
        ("fitted", {"label": "balanced", "temperature": 0.7}),
        ("fitted", {"prior": "normal"}),
        ("mixed", {"label": "balanced"}),
    ],
)
def test_labelled_images_under_load_are_those_asked_alone(labelled_models, model, options):
    with serving(models_dir=labelled_models, workers=3) as client:

        def ask(first: int, n: int) -> list[dict[str, object]]:
            body = {"model": model, "n": n, "seed": 7, "first": first, **options}
            images: list[dict[str, object]] = client.post("/generate", json=body).json()["images"]
            return images

        alone = [ask(index, 1)[0] for index in range(40)]
        spans = [(first, n) for n in (1, 3, 8, 33) for first in range(0, 40 - n, 2 * n)]
        with ThreadPoolExecutor(16) as callers:
            under_load = list(callers.map(lambda span: ask(*span), spans))
    for (first, n), images in zip(spans, under_load, strict=True):
        assert images == alone[first : first + n]


def test_scores_do_not_depend_on_how_many_were_asked():
    with serving() as client:
        whole = client.post("/score", json={"n": 100, "seed": 9}).json()["scores"]
        for n in (1, 2, 7, 8, 15, 33):
            assert client.post("/score", json={"n": n, "seed": 9}).json()["scores"] == whole[:n]


@pytest.mark.skipif(not computes_in_bfloat16(torch.device("cpu")), reason="this processor does not compute in bfloat16")
def test_no_pixel_of_8192_images_is_further_from_float32_than_the_bound():
    reference = load_models(ROOT / "models", Runtime("cpu", "float32"), 8)
    served = load_models(ROOT / "models", Runtime("cpu"), 8).values()
    lower = [model for model in served if model.precision != "float32"]
    assert lower
    for model in lower:
        # Other latents than those that the export compared.
        latents = normal_rows(2026, 0, IMAGES, model.manifest.latent_dim)
        networks = (model.networks["generate"], reference[model.name].networks["generate"])
        with ThreadPoolExecutor(2) as threads:
            ours, theirs = threads.map(partial(images_of, latents), networks)
        assert 0 < float(np.abs(ours - theirs).max()) <= PIXEL_BOUND


def images_of(latents: Rows, network: Network) -> Rows:
    batches = np.split(latents, IMAGES // 16)
    return np.concatenate([network.compute([rows])[0][0] for rows in batches])

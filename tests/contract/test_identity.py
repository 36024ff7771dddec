"""Seeded means byte-identical: alone, in batches, under load, and across restarts."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest

from app.checkpoints.store import find_manifests, read_manifest
from app.inference.latents import normal_rows
from app.inference.model import Model, load_model
from app.inference.runtime import Runtime
from tests.conftest import FIXTURES, ROOT, serving
from tests.tiny_models import write_checkpoints

Precision = Literal["auto", "float32"]
ROWS = 64
SIZES = (1, 2, 3, 5, 8, 13, 16, 31, 33, 64)
IMAGES = 50
# Of sequential models, whose passes take longer. `make identity` compares more.
SEQUENTIAL_ROWS, SEQUENTIAL_SIZES, SEQUENTIAL_IMAGES = 16, (1, 3, 5, 16), 16
CALLERS = 16
SHIPPED = [read_manifest(path) for path in find_manifests(ROOT / "models")]


@lru_cache(maxsize=1)
def shipped(name: str, precision: Precision) -> Model:
    """A shipped model."""
    return load_model(ROOT / "models" / name / "manifest.json", Runtime("cpu", precision), 8)


@pytest.mark.parametrize(
    ("name", "precision", "capability"),
    [
        (manifest.name, precision, capability)
        for manifest in SHIPPED
        for precision in (("auto", "float32") if "bfloat16" in manifest.archives else ("auto",))
        for capability in manifest.capabilities
    ],
)
def test_a_row_has_the_same_bits_in_batches_of_any_size_at_any_position(name, precision, capability):
    model = shipped(name, precision)
    network, manifest = model.networks[capability], model.manifest
    shape = manifest.shape(manifest.inputs(capability)[0])
    count, sizes = (SEQUENTIAL_ROWS, SEQUENTIAL_SIZES) if manifest.sequential else (ROWS, SIZES)
    rows = np.clip(normal_rows(11, 0, count, int(np.prod(shape))), 0, 1 if len(shape) > 1 else None)
    inputs: list[Any] = [rows.reshape(count, *shape)]
    if manifest.takes_labels(capability):
        inputs.append(np.arange(count) * 7 % len(manifest.classes))
    alone = [network.run(*(each[row : row + 1] for each in inputs)) for row in range(count)]
    for size in sizes:
        for first in {0, (count - size) // 2, count - size}:
            together = network.run(*(each[first : first + size] for each in inputs))
            for output, single in zip(together, zip(*alone, strict=True), strict=True):
                assert np.array_equal(output, np.concatenate(single[first : first + size])), f"{size} rows from {first}"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Two services, with one worker and with three, of the shipped checkpoints and of some with other labels."""
    models: Path = tmp_path_factory.mktemp("models")
    write_checkpoints(models)
    for manifest in SHIPPED:
        shutil.rmtree(models / manifest.name, ignore_errors=True)
        (models / manifest.name).symlink_to(ROOT / "models" / manifest.name)
    with serving(models_dir=models, workers=1) as one, serving(models_dir=models, workers=3) as other:
        yield one, other


@pytest.mark.parametrize(
    "options",
    [
        *({"model": manifest.name} for manifest in SHIPPED if "generate" in manifest.capabilities),
        {"model": "vae", "prior": "normal", "temperature": 0.7},
        {"model": "cgan", "label": "balanced", "truncation": 1.5},
        {"model": "fitted", "label": ["3", "8", "1"], "temperature": 0.7},
        {"model": "mixed"},
        {"model": "boots", "label": "Bag"},
    ],
    ids=str,
)
def test_images_under_load_are_those_of_lone_requests_to_another_service(services, options):
    lone, loaded = services
    sequential = lone.get(f"/models/{options['model']}").json()["manifest"]["sequential"]
    count = SEQUENTIAL_IMAGES if sequential else IMAGES

    def ask(client: httpx.Client, first: int, n: int) -> list[Any]:
        answer = client.post("/generate", json={"n": n, "seed": 7, "first": first, **options})
        assert answer.status_code == 200, answer.text
        images: list[Any] = answer.json()["images"]
        return images

    alone = [ask(lone, index, 1)[0] for index in range(count)]
    spans = [(first, n) for n in (1, 3, 8, 33) for first in range(0, count - n, 2 * n)]
    with ThreadPoolExecutor(CALLERS) as callers:
        for (first, n), images in zip(spans, callers.map(lambda span: ask(loaded, *span), spans), strict=True):
            assert images == alone[first : first + n]


@pytest.mark.parametrize(
    ("path", "items", "options"),
    [
        ("/score", "scores", {"model": "cgan"}),
        ("/score", "scores", {"model": "gan-deep"}),
        ("/upscale", "images", {"model": "quadruple"}),
    ],
)
def test_answers_for_generated_images_do_not_depend_on_their_number(services, path, items, options):
    lone, loaded = services
    whole = lone.post(path, json={"n": IMAGES, "seed": 9, **options}).json()[items]
    assert len(whole) == IMAGES
    for n in (1, 2, 7, 8, 15, 33):
        assert loaded.post(path, json={"n": n, "seed": 9, **options}).json()[items] == whole[:n]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/reconstruct", {"model": "vae"}),
        ("/reconstruct", {"model": "vae", "seed": "7"}),
        ("/reconstruct", {"model": "cvae", "label": "3", "seed": "7"}),
        ("/score", {"model": "gan"}),
        ("/classify", {"model": "reader"}),
        ("/upscale", {"model": "double"}),
    ],
)
def test_answers_to_uploads_under_load_are_those_of_lone_requests_to_another_service(services, path, query):
    lone, loaded = services
    files = [file.read_bytes() for file in sorted((FIXTURES / "mnist").glob("*.png"))]

    def ask(client: httpx.Client, content: bytes) -> bytes:
        answer = client.post(path, params=query, content=content, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text
        return answer.content

    alone = [ask(lone, content) for content in files]
    with ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(lambda content: ask(loaded, content), files * 4)) == alone * 4


def test_a_path_under_load_is_that_of_a_lone_request_to_another_service(services):
    lone, loaded = services
    queries = [
        {"model": model, "from_seed": "1", "to_seed": str(seed), "steps": "24"}
        for model in ("vae", "gan")
        for seed in range(2, 8)
    ]

    def ask(client: httpx.Client, query: dict[str, str]) -> bytes:
        answer = client.get("/interpolate", params=query)
        assert answer.status_code == 200, answer.text
        return answer.content

    alone = [ask(lone, query) for query in queries]
    with ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(lambda query: ask(loaded, query), queries)) == alone

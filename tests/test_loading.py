"""Loading at the start and again: what serves, what is said, and what is left of the models before."""

import asyncio
import gc
import shutil
import weakref
from math import inf
from pathlib import Path

import pytest

from app.errors import WorkerLost
from app.inference.latents import normal_rows
from app.loading import Loader
from app.metrics import Metrics
from app.readiness import Readiness
from app.settings import Settings
from tests.conftest import ROOT


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with a copy of the shipped VAE."""
    shutil.copytree(ROOT / "models" / "vae", tmp_path / "vae")
    return tmp_path


class Bench:
    """A loader and what it reports to."""

    def __init__(self, models: Path) -> None:
        self.readiness, self.metrics = Readiness(), Metrics()
        settings = Settings(models_dir=models, device="cpu", worker_checks=1)
        self.loader = Loader(settings, self.readiness, self.metrics)

    def reloads(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("digits_reloads_total", {"outcome": outcome})


def test_after_a_reload_nothing_is_left_of_the_engine_before(models):
    async def scenario() -> None:
        b = Bench(models)
        assert await b.loader.start()
        old = weakref.ref(b.readiness.engine())
        await b.loader.reload()
        gc.collect()
        assert old() is None
        assert b.reloads("swapped") == 1
        await b.loader.close()

    asyncio.run(scenario())


def test_whoever_began_with_an_engine_ends_with_it(models):
    async def scenario() -> None:
        b = Bench(models)
        assert await b.loader.start()
        engine = b.readiness.engine()
        await b.loader.reload()
        assert b.readiness.engine() is not engine
        model = engine.models["vae"]
        made = await engine.generate(model, normal_rows(1, 0, 3, model.manifest.latent_dim), inf)
        assert made.images.shape == (3, 28, 28)
        await b.loader.close()

    asyncio.run(scenario())


def test_a_bad_reload_changes_nothing_and_is_told(models, caplog):
    async def scenario() -> None:
        b = Bench(models)
        assert await b.loader.start()
        engine = b.readiness.engine()
        (models / "vae" / "manifest.json").write_text("{")
        await b.loader.reload()
        assert b.readiness.engine() is engine
        assert b.readiness.reasons() == []
        assert b.reloads("refused") == 1
        assert b.reloads("swapped") == 0
        assert f"the models from before serve on: {models / 'vae' / 'manifest.json'}: " in caplog.text
        await b.loader.close()

    asyncio.run(scenario())


def test_a_bad_start_is_told_and_nothing_serves(models, caplog):
    async def scenario() -> None:
        b = Bench(models)
        (models / "vae" / "manifest.json").write_text("{")
        assert not await b.loader.start()
        assert b.readiness.reasons() == ["loading the models failed; the log says why"]
        assert f"cannot start: {models / 'vae' / 'manifest.json'}: " in caplog.text
        await b.loader.close()

    asyncio.run(scenario())


def test_when_workers_are_lost_those_who_hold_an_older_engine_are_told_too(models):
    async def scenario() -> None:
        b = Bench(models)
        assert await b.loader.start()
        older = b.readiness.engine()
        await b.loader.reload()
        b.loader.fail(lambda: WorkerLost("all is lost"))
        for engine in (older, b.readiness.engine()):
            model = engine.models["vae"]
            with pytest.raises(WorkerLost):
                await engine.generate(model, normal_rows(1, 0, 3, model.manifest.latent_dim), inf)
        await b.loader.close()

    asyncio.run(scenario())

"""Loading at the start and again: what serves, what is said, and what is left of the models before."""

import asyncio
import gc
import shutil
import weakref
from math import inf
from pathlib import Path
from time import monotonic

import pytest

from app import loading
from app.errors import WorkerLost
from app.inference.faults import DeviceLost
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
        settings = Settings(models_dir=models, device="cpu", worker_checks=2)
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


def test_a_deadline_to_come_keeps_nothing_of_the_models_before(models):
    async def scenario() -> None:
        b = Bench(models)
        assert await b.loader.start()
        engine = b.readiness.engine()
        network = weakref.ref(engine.models["vae"].networks["generate"])
        rows = normal_rows(1, 0, 1, engine.models["vae"].manifest.latent_dim)
        await engine.generate(engine.models["vae"], rows, monotonic() + 3600)
        del engine
        await b.loader.reload()
        gc.collect()
        assert network() is None
        await b.loader.close()

    asyncio.run(scenario())


def test_a_device_that_is_lost_while_models_are_loaded_is_told_and_the_next_reload_works(models, monkeypatch, caplog):
    def lost(*_: object) -> None:
        raise DeviceLost from RuntimeError("CUDA error: operation not permitted\nand more of it")

    async def scenario() -> None:
        with monkeypatch.context() as context:
            context.setattr(loading, "load_models", lost)
            b = Bench(models)
            assert not await b.loader.start()
            await b.loader.close()
            assert "cannot start: device cpu failed while models were loaded: CUDA error: operation" in caplog.text
        b = Bench(models)
        assert await b.loader.start()
        with monkeypatch.context() as context:
            context.setattr(loading, "load_models", lost)
            await b.loader.reload()
        assert "cannot reload, the models from before serve on: device cpu failed" in caplog.text
        assert b.reloads("refused") == 1
        await b.loader.reload()
        assert b.reloads("swapped") == 1
        await b.loader.close()

    asyncio.run(scenario())
    assert "Traceback" not in caplog.text


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

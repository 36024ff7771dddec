"""Loading models at the start and at a reload."""

import gc
import shutil
import weakref
from collections.abc import AsyncIterator, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from app.errors import Draining, WorkerLost
from app.inference import loading
from app.inference.batching import Chunk, Job
from app.inference.loading import Loader
from app.inference.readiness import Readiness
from app.inference.runtime import DeviceLost, Rows
from app.metrics import Metrics
from app.scoreboard import Scoreboard
from app.settings import Settings
from tests.tiny_models import Autoencoder, write, write_vae

pytestmark = pytest.mark.anyio


class Means(Job[Rows]):
    """Encodes one image of zeros."""

    operation = "means"
    rows = 1

    @classmethod
    def compute(cls, model: Any, chunks: "Sequence[Chunk[Means]]") -> list[Rows]:
        mean, _ = model.encode(np.zeros((len(chunks), 1, 4, 4), np.float32), None)
        return [row[None] for row in mean]

    def answer(self, parts: Sequence[Rows]) -> bytes:
        return parts[0].tobytes()


class Service:
    """A loader, and the objects that it reports to."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        scoreboard = Scoreboard()
        self.models, self.readiness, self.metrics = folder, Readiness(scoreboard), Metrics(scoreboard)
        made = Settings(models_dir=folder, device="cpu", workers=1, **settings)
        self.loader = Loader(made, self.readiness, self.metrics)

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of a series."""
        return self.metrics.registry.get_sample_value(f"digits_{name}", labels)

    def described(self) -> set[tuple[str, str]]:
        """Name and digest of each series of `digits_model_info`."""
        (info,) = (each for each in self.metrics.registry.collect() if each.name == "digits_model_info")
        return {(each.labels["model"], each.labels["digest"]) for each in info.samples}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with one tiny VAE, not yet loaded."""
    write_vae(tmp_path)
    made = Service(tmp_path)
    yield made
    await made.loader.close()


async def test_a_start_loads_every_model_and_describes_it(service):
    assert service.readiness.reasons()
    write_vae(service.models, "other")
    assert await service.loader.start()
    assert service.readiness.reasons() == []
    models = service.readiness.engine().models
    assert service.described() == {(name, model.provenance.digest) for name, model in models.items()}
    assert set(models) == {"vae", "other"}


async def test_only_the_models_that_are_named_are_loaded_also_by_a_reload(tmp_path):
    for name in ("a", "b", "c"):
        write_vae(tmp_path, name)
    service = Service(tmp_path, models=("c", "a"))
    assert await service.loader.start()
    assert list(service.readiness.engine().models) == ["a", "c"]
    write_vae(tmp_path, "d")
    await service.loader.reload()
    assert list(service.readiness.engine().models) == ["a", "c"]
    shutil.rmtree(tmp_path / "c")
    await service.loader.reload()
    assert service.sample("reloads_total", outcome="refused") == 1
    assert list(service.readiness.engine().models) == ["a", "c"]
    await service.loader.close()


async def test_a_reload_swaps_the_models_and_frees_the_ones_before(service):
    assert await service.loader.start()
    engine = service.readiness.engine()
    # A deadline to come must not keep the models either.
    await engine.run(engine.models["vae"], Means(), monotonic() + 3600)
    before = service.described()
    released = [weakref.ref(engine), weakref.ref(engine.models["vae"].networks["generate"])]
    del engine
    shutil.rmtree(service.models / "vae")
    write(service.models, "vae", Autoencoder(28))
    await service.loader.reload()
    gc.collect()
    assert [each() for each in released] == [None, None]
    assert service.sample("reloads_total", outcome="swapped") == 1
    assert len(service.described()) == 1
    assert service.described() != before
    assert set(service.readiness.engine().models["vae"].networks) == {"generate", "embed", "decode"}


async def test_a_request_that_began_with_an_engine_ends_with_it(service):
    assert await service.loader.start()
    engine = service.readiness.engine()
    await service.loader.reload()
    assert service.readiness.engine() is not engine
    assert await engine.run(engine.models["vae"], Means(), inf) == bytes(12)


async def test_a_device_lost_while_loading_is_reported_in_one_line_and_the_next_reload_works(
    service, monkeypatch, caplog
):
    def lost(*_: object) -> None:
        raise DeviceLost from RuntimeError("CUDA error: operation not permitted\nand more of it")

    assert await service.loader.start()
    with monkeypatch.context() as context:
        context.setattr(loading, "load_models", lost)
        await service.loader.reload()
    assert service.sample("reloads_total", outcome="refused") == 1
    assert "CUDA error: operation not permitted" in caplog.text
    assert "and more of it" not in caplog.text
    await service.loader.reload()
    assert service.sample("reloads_total", outcome="swapped") == 1


@pytest.mark.parametrize("error", [WorkerLost, Draining])
async def test_lost_workers_and_a_drain_fail_the_jobs_of_older_engines_as_well(service, error):
    assert await service.loader.start()
    engines = [service.readiness.engine()]
    await service.loader.reload()
    engines.append(service.readiness.engine())
    if error is WorkerLost:
        service.loader.fail(lambda: WorkerLost("the worker hangs"))
    else:
        await service.loader.close()
    for engine in engines:
        with pytest.raises(error):
            await engine.run(engine.models["vae"], Means(), inf)

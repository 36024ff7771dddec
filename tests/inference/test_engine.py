"""The choice of a model for a request."""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from app.errors import CapabilityMissing, InvalidRequest, Overloaded
from app.inference.batching import Job
from app.inference.engine import Engine, Pool
from app.inference.limit import Limit
from app.inference.model import Model, load_models
from app.inference.runtime import Runtime
from app.inference.workers import Workers
from app.metrics import Metrics
from app.scoreboard import Scoreboard
from tests.conftest import HANG_S
from tests.tiny_models import edited, write_vae


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    """`a` cannot generate, `b` and `c` can; `slow` is sequential."""
    write_vae(tmp_path, "a", "decode", "encode")
    for name in ("b", "c"):
        write_vae(tmp_path, name)
    with edited(write_vae(tmp_path, "slow")) as manifest:
        manifest["sequential"] = True
    return load_models(tmp_path, Runtime("cpu"), 8)


@pytest.fixture
def engine(models: dict[str, Model], pool: Callable[[int], Workers]) -> Callable[..., Engine]:
    """Makes an engine with a default model, with one worker and 8 rows in flight in each of its pools."""
    board = Scoreboard()

    def make(default: str | None = None) -> Engine:
        usual, sequential = (
            Pool(pool(1), Limit(8, board.counter(name), small=16, what="rows")) for name in ("rows", "sequential_rows")
        )
        return Engine(models, usual, sequential, Metrics(), default_model=default, max_batch_rows=8)

    return make


class Waiting(Job[None]):
    """Computes nothing until `released`, on a model and perhaps another one."""

    operation = "wait"
    rows = 8

    def __init__(self, other: Model | None = None) -> None:
        self.released = Event()
        self._other = other

    @property
    def other_models(self) -> tuple[Model, ...]:
        return () if self._other is None else (self._other,)

    @classmethod
    def compute(cls, model: Model, chunks: "Sequence[Any]") -> list[None]:
        assert all(chunk.job.released.wait(HANG_S) for chunk in chunks)
        return [None] * len(chunks)

    def answer(self, parts: Sequence[None]) -> bytes:
        return b"done"


@pytest.mark.parametrize(("default", "found"), [(None, "b"), ("c", "c"), ("a", "b")])
def test_without_a_name_the_default_serves_else_the_first_model_that_can(engine, default, found):
    model, prepared = engine(default).select(None, lambda model: model.require("generate"))
    assert (model.name, prepared) == (found, None)


def test_if_no_model_can_an_error_about_values_goes_before_one_about_capabilities(engine):
    def prepare(model: Model) -> None:
        model.require("generate")
        raise InvalidRequest("n is too large")

    with pytest.raises(InvalidRequest) as caught:
        engine().select(None, prepare)
    assert caught.value.detail.endswith("n is too large")


def test_if_no_model_can_the_error_of_one_that_has_the_network_goes_first(engine):
    def prepare(model: Model) -> None:
        model.require("generate")
        raise CapabilityMissing(f"model {model.name} makes no circles")

    with pytest.raises(CapabilityMissing) as caught:
        engine().select(None, prepare)
    assert caught.value.detail.endswith("for example, model b makes no circles")


def test_the_error_of_a_search_within_a_search_is_given_once(engine):
    searched = engine()

    def prepare(model: Model) -> None:
        searched.select(None, lambda generator: generator.require("upscale"), "generator")

    with pytest.raises(CapabilityMissing) as caught:
        searched.select("b", prepare)
    assert caught.value.detail.count("no loaded") == 1
    assert "generator" in caught.value.detail


def test_an_error_that_is_the_same_for_all_models_is_given_as_it_is(engine):
    def prepare(model: Model) -> None:
        raise InvalidRequest("n is too large")

    with pytest.raises(InvalidRequest) as caught:
        engine().select(None, prepare)
    assert caught.value.detail == "n is too large"


@pytest.mark.anyio
@pytest.mark.parametrize(("model", "other"), [("slow", None), ("b", "slow")], ids=["its own", "that of its generator"])
async def test_a_sequential_pass_holds_back_no_other_models(engine, models, model, other):
    engine, long, short = engine(), Waiting(models.get(other)), Waiting()
    waiting = engine.run(models[model], long, inf)
    short.released.set()
    assert await asyncio.wait_for(engine.run(models["b"], short, inf), HANG_S) == b"done"
    assert not waiting.done()
    long.released.set()
    assert await asyncio.wait_for(waiting, HANG_S) == b"done"


def test_rows_of_sequential_models_have_a_bound_of_their_own(engine, models):
    engine = engine()
    with engine.admit(models["slow"], Waiting()):
        with pytest.raises(Overloaded), engine.admit(models["b"], Waiting(models["slow"])):
            pass
        with engine.admit(models["b"], Waiting()):
            pass

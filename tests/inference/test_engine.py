"""The choice of a model for a request."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.inference.engine import Engine
from app.inference.limit import Limit
from app.inference.model import Model, load_models
from app.inference.runtime import Runtime
from app.inference.workers import Workers
from app.metrics import Metrics
from app.scoreboard import Scoreboard
from tests.tiny_models import write_vae


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    """`a` cannot generate, `b` and `c` can."""
    write_vae(tmp_path, "a", "decode", "encode")
    for name in ("b", "c"):
        write_vae(tmp_path, name)
    return load_models(tmp_path, Runtime("cpu"), 8)


@pytest.fixture
def engine(models: dict[str, Model], pool: Callable[[int], Workers]) -> Callable[..., Engine]:
    """Makes an engine with a default model."""
    limit = Limit(8, Scoreboard().counter("rows"), small=16, what="rows")
    return lambda default=None: Engine(models, pool(1), limit, Metrics(), default_model=default, max_batch_rows=8)


@pytest.mark.parametrize(("default", "found"), [(None, "b"), ("c", "c"), ("a", "b")])
def test_without_a_name_the_default_serves_else_the_first_model_that_can(engine, default, found):
    model, prepared = engine(default).find(None, lambda model: model.require("generate"))
    assert (model.name, prepared) == (found, None)


def test_if_no_model_can_an_error_about_values_goes_before_one_about_capabilities(engine):
    def prepare(model: Model) -> None:
        model.require("generate")
        raise InvalidRequest("n is too large")

    with pytest.raises(InvalidRequest) as caught:
        engine().select(None, prepare)
    assert caught.value.detail.endswith("n is too large")


def test_an_error_that_is_the_same_for_all_models_is_given_as_it_is(engine):
    def prepare(model: Model) -> None:
        raise InvalidRequest("n is too large")

    with pytest.raises(InvalidRequest) as caught:
        engine().select(None, prepare)
    assert caught.value.detail == "n is too large"

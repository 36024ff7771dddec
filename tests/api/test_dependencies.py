"""What routes depend on stays on the event loop."""

import inspect
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api import docs, generate, health, interpolate, models, reconstruct, score

MODULES = (docs, generate, health, interpolate, models, reconstruct, score)
ROUTES = [
    route
    for router in (*(module.router for module in MODULES), health.probes)
    for route in router.routes
    if isinstance(route, APIRoute)
]


def calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for below in dependant.dependencies:
        yield from calls(below)


@pytest.mark.parametrize("route", [pytest.param(route, id=str(route.name)) for route in ROUTES])
def test_a_route_and_all_it_depends_on_are_coroutines(route):
    # FastAPI calls anything else on a thread of its pool.
    assert [call for call in calls(route.dependant) if not inspect.iscoroutinefunction(call)] == []

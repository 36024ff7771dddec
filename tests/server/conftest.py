"""A small app behind the real HTTP protocol, so that tests of the protocol load no model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Event

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from app.errors import install_error_handlers
from app.server.protocol import Limits
from tests.conftest import listening
from tests.contract.wire import Address, address_of


@dataclass
class Gate:
    """Between a test and `make_app`: `/later` sets `begun` and waits for `go_on`; `gone` says that a client left."""

    begun: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)


def make_app(gate: Gate) -> FastAPI:
    """`/echo` reads its body, `/unread` does not, `/later` waits, `/endless` never ends its response."""
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/echo", operation_id="get")
    @app.post("/echo", operation_id="post")
    async def echo(request: Request) -> dict[str, object]:
        try:
            size = len(await request.body())
        except ClientDisconnect:
            gate.gone.set()
            raise
        names = [name.decode() for name, _ in request.scope["headers"]]
        return {"bytes": size, "query": str(request.query_params), "headers": names}

    @app.post("/unread")
    async def unread() -> dict[str, str]:
        return {}

    @app.get("/later")
    def later() -> dict[str, str]:
        gate.begun.set()
        assert gate.go_on.wait(60)
        return {"query": "later"}

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(2**20)
                    await asyncio.sleep(0)  # what is sent to a client that has gone is dropped without a wait
            finally:
                gate.gone.set()

        return StreamingResponse(pieces())

    return app


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def start(gate: Gate) -> Iterator[Callable[..., Address]]:
    """Starts the small app with these limits; its address."""
    with ExitStack() as servers:

        def start(limits: Limits, keep_alive_s: int = 600) -> Address:
            client = servers.enter_context(listening(make_app(gate), limits, keep_alive_s))
            return address_of(client)

        yield start


@pytest.fixture(scope="session")
def patient() -> Iterator[Address]:
    """The address of the small app without a time limit that a test could reach."""
    with listening(make_app(Gate()), Limits(receive_timeout_s=600), keep_alive_s=600) as client:
        yield address_of(client)

"""The service over gRPC, and requests of the protocol."""

import asyncio
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, cast

import grpc
import pytest

from app.api.service_state import State
from app.inference.readiness import Readiness
from app.main import create_app
from app.open_inference.grpc_messages import load_messages
from app.open_inference.grpc_server import SERVICE, GrpcServer
from app.settings import Settings
from tests.conftest import ROOT, WatchedReadiness

MESSAGES = load_messages()


class Caller:
    """Calls the RPCs of the protocol by name, with the fields of a request."""

    def __init__(self, channel: grpc.Channel, readiness: Readiness) -> None:
        self.channel = channel
        self.readiness = readiness

    def rpc(self, name: str) -> Any:
        response = MESSAGES[f"{name}Response"].FromString if f"{name}Response" in MESSAGES else None
        return self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
            response_deserializer=response,
        )

    def message(self, rpc: str, /, **fields: Any) -> Any:
        return MESSAGES[f"{rpc}Request"](**fields)

    def __call__(self, rpc: str, /, metadata: Any = (), **fields: Any) -> Any:
        return self.rpc(rpc)(self.message(rpc, **fields), metadata=metadata, timeout=60)


@contextmanager
def serving_grpc(readiness: Readiness | None = None, **settings: object) -> Iterator[Caller]:
    """A caller of a service with these settings, which has loaded its models unless it has a readiness of its own."""
    watched = readiness or WatchedReadiness()
    made = Settings(**{"models_dir": ROOT / "models", "device": "cpu", **settings})  # type: ignore[arg-type]
    started: queue.SimpleQueue[tuple[int, Callable[[], object]]] = queue.SimpleQueue()

    async def serve() -> None:
        app = create_app(made, readiness=watched)
        async with app.router.lifespan_context(app) as state:
            server = GrpcServer(cast(State, state))
            end = asyncio.Event()
            loop = asyncio.get_running_loop()
            started.put((await server.start("127.0.0.1", 0), lambda: loop.call_soon_threadsafe(end.set)))
            await end.wait()
            await server.stop(10)

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    port, stop = started.get(timeout=60)
    try:
        if isinstance(watched, WatchedReadiness):
            assert watched.ended.wait(120)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Caller(channel, watched)
    finally:
        stop()
        thread.join(60)


@pytest.fixture(scope="session")
def called() -> Iterator[Caller]:
    """The service with its default settings and two shipped checkpoints."""
    with serving_grpc(models="cgan,lenet") as caller:
        yield caller

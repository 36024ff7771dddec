"""The service as tests use it: the shipped checkpoints, behind the real application."""

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.inference.engine import Engine
from app.inference.readiness import Readiness
from app.main import create_app
from app.server.protocol import Limits, bounded_protocol
from app.settings import Settings
from tests.tiny_models import write_checkpoints

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures"


# The settings of a tested service come from its test only.
for name in [name for name in os.environ if name.startswith("DIGITS_")]:
    del os.environ[name]


def pytest_sessionstart() -> None:
    """Services read this file from where they are started."""
    if (ROOT / "digits.env").exists():
        pytest.exit("digits.env in the checkout would change what is tested: move it away for the tests", returncode=1)


def pytest_collection_finish() -> None:
    """Exclude the imports of all tests from garbage collection, as the service does; then a full collection is fast."""
    gc.collect()
    gc.freeze()


class WatchedReadiness(Readiness):
    """Sets an event when loading has ended, so that a test need not poll."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = Event()

    def loaded(self, engine: Engine) -> None:
        super().loaded(engine)
        self.ended.set()

    def failed(self) -> None:
        super().failed()
        self.ended.set()


@contextmanager
def listening(app: FastAPI, limits: Limits | None = None, keep_alive_s: int = 30) -> Iterator[httpx.Client]:
    """A client of the app behind a real server, in a thread, on a free port of loopback."""
    # asyncio sets TCP_NODELAY only on sockets that name the protocol; without it an answer may take 40 ms longer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # connections wait in the queue of the system until the server has started
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=bounded_protocol(limits or Limits()),
                ws="none",
                loop="asyncio",
                timeout_keep_alive=keep_alive_s,
                timeout_graceful_shutdown=10,
                log_config=None,
                access_log=False,
            )
        )
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def serving(**settings: object) -> Iterator[httpx.Client]:
    """A client of a service that has loaded its models, with the default settings except those given."""
    readiness = WatchedReadiness()
    made = Settings(**{"models_dir": ROOT / "models", "device": "cpu", **settings})  # type: ignore[arg-type]
    app = create_app(made, readiness=readiness)
    with listening(app, Limits(made.receive_timeout_s, made.max_connections)) as client:
        assert readiness.ended.wait(120)
        yield client
    del app, readiness
    gc.collect()  # an app refers to itself, and holds its models


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """The service with its default settings and the shipped checkpoints."""
    with serving() as client:
        yield client


@pytest.fixture
def digit() -> bytes:
    """A real MNIST test image, a seven, as PNG."""
    return (FIXTURES / "mnist" / "7.png").read_bytes()


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with a tiny model of every kind and the shipped GAN, which takes no labels."""
    models = tmp_path_factory.mktemp("labelled")
    write_checkpoints(models)
    (models / "gan").symlink_to(ROOT / "models" / "gan")
    with serving(models_dir=models) as client:
        yield client

"""The service as tests use it: the shipped checkpoints, behind the real application."""

import gc
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.inference.engine import Engine
from app.inference.model import Model
from app.inference.readiness import Readiness
from app.main import create_app
from app.server.protocol import Limits, bounded_protocol
from app.settings import Settings
from tests.tiny_models import Autoencoder, write, write_checkpoints

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
# Of MNIST, one of each digit, as PNG.
TEST_IMAGES = [(FIXTURES / "mnist" / f"{digit}.png").read_bytes() for digit in range(10)]
SHIPPED_NAMES = sorted(path.parent.name for path in ROOT.glob("models/*/manifest.json"))
HANG_S = 60  # only ends a test that would never end


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


class NeverLoaded(Readiness):
    """Stays in the state of loading."""

    def loaded(self, engine: object) -> None:
        pass


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
    """A test image of MNIST, a seven, as PNG."""
    return TEST_IMAGES[7]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one tiny model, which generates, encodes and decodes."""
    directory = tmp_path_factory.mktemp("tiny")
    write(directory, "plain", Autoencoder(28), ())
    return directory


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with a tiny model of every kind and the shipped GAN, which takes no labels."""
    models = tmp_path_factory.mktemp("labelled")
    write_checkpoints(models)
    (models / "gan").symlink_to(ROOT / "models" / "gan")
    with serving(models_dir=models) as client:
        yield client


class Gate:
    """Holds every forward pass of a request until it is opened."""

    def __init__(self) -> None:
        self.reached = Semaphore(0)
        self.opened = Event()

    @contextmanager
    def hold(self, client: httpx.Client, path: str, **request: Any) -> Iterator[None]:
        """A request that is being computed within the context, and is answered at its end."""
        self.reached = Semaphore(0)  # the last request may have passed the gate several times
        self.opened.clear()
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(client.post, path, **request)
            try:
                assert self.reached.acquire(timeout=HANG_S)
                yield
            finally:
                self.opened.set()
            assert answer.result().status_code == 200


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate in front of the networks."""
    gate, run = Gate(), Model.run

    def held(*arguments: Any) -> Any:
        gate.reached.release()
        assert gate.opened.wait(HANG_S)
        return run(*arguments)

    monkeypatch.setattr(Model, "run", held)
    yield gate
    gate.opened.set()


@pytest.fixture
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, through the pytest plugin of anyio."""
    return "asyncio"


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the bytes of files, as a nearly full disk does. No fixture: pytest writes a log before it ends those."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

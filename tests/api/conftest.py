"""Fixtures of the tests that start services of their own or hold computations."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import httpx
import pytest

from app.inference.model import Model
from tests.tiny_models import Autoencoder, write

WAIT_S = 60  # ends a test that would never end


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one tiny model, which generates, encodes and decodes."""
    directory = tmp_path_factory.mktemp("tiny")
    write(directory, "plain", Autoencoder(28), ())
    return directory


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
                assert self.reached.acquire(timeout=WAIT_S)
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
        assert gate.opened.wait(WAIT_S)
        return run(*arguments)

    monkeypatch.setattr(Model, "run", held)
    yield gate
    gate.opened.set()

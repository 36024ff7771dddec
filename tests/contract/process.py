"""`python -m app` as a process of its own, on a free port of loopback."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx

from tests.conftest import ROOT

T = TypeVar("T")
START_TIMEOUT_S = 120
APP = ("-m", "app")
GUNICORN = ("-m", "gunicorn", "--config", "python:app.server.gunicorn_conf")


@dataclass
class Service:
    """A running service."""

    process: "subprocess.Popen[str]"
    url: str


def until(condition: Callable[[], T]) -> T:
    """The value of a condition once it is true; a test can only poll another process. Fails after `START_TIMEOUT_S`."""
    ends = time.monotonic() + START_TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < ends, "the condition never became true"
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def start(port: int, arguments: Sequence[str] = APP, **settings: str) -> "subprocess.Popen[str]":
    """Start a service of one process with these settings, a port and a device, and no others.

    arguments: of the interpreter.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIGITS_")}
    environment |= {"DIGITS_PORT": str(port), "DIGITS_DEVICE": "cpu", "DIGITS_PROCESSES": "1"}
    environment |= {f"DIGITS_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(arguments: Sequence[str] = APP, **settings: str) -> Iterator[Service]:
    """A service that is ready; it gets SIGTERM afterwards, and SIGKILL if it does not end."""
    port = free_port()
    process = start(port, arguments, **settings)
    # A log that nobody reads would fill its pipe and block the service.
    reader = threading.Thread(target=process.communicate)
    reader.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url)
        yield Service(process, url)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join()


def wait_until_ready(process: "subprocess.Popen[str]", url: str) -> None:
    """Wait until a service is ready; fails when its process ends or the time is over."""

    def ready() -> bool:
        assert process.poll() is None, f"the service ended with status {process.returncode}"
        try:
            return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    until(ready)

"""`python -m app` from its start to its end."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.__main__ import main
from tests.api.reading import measured
from tests.conftest import ROOT
from tests.contract.process import APP, GUNICORN, Service, free_port, running, start, until, wait_until_ready
from tests.contract.wire import Address
from tests.tiny_models import write_vae

# A process that does not end by itself is made to after an hour, which no test waits for.
IN_ORDER = {"shutdown_grace_s": "3600"}
MODELS = "gan,vae"  # all would take long to load
QUEUE = {"model": "gan", "operation": "generate"}
REQUEST = (
    b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 16\r\n\r\n{"model": "vae"}'
)


def address_of(service: Service) -> Address:
    return "127.0.0.1", int(service.url.rpartition(":")[2])


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and log of a process that ends by itself."""
    try:
        _, log = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, log


def wait_until_started(service: Service, requests: int) -> None:
    """Wait until `requests` requests for the GAN's images have had a row computed."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        until(lambda: measured(client, "queue_wait_seconds_count", **QUEUE) >= requests)


def test_a_damaged_checkpoint_ends_the_start_with_status_1_and_one_line(tmp_path):
    (write_vae(tmp_path) / "vae.pt").write_bytes(b"damaged")
    status, log = end(start(free_port(), models_dir=str(tmp_path)))
    (line,) = log.splitlines()
    assert status == 1
    assert str(tmp_path) in line


@pytest.mark.parametrize("command", [APP, GUNICORN])
@pytest.mark.parametrize(
    ("settings", "status", "named"),
    [
        ({"models_dir": "x" * 300}, 1, "cannot be read"),
        ({"models": "cgan,veil"}, 1, "veil"),
        ({"host": "a..b"}, 1, "DIGITS_HOST"),
        ({"api_key": "too-short"}, 2, "DIGITS_API_KEY"),
    ],
)
def test_a_mistake_of_the_operator_is_one_line_however_the_service_is_started(command, settings, status, named):
    ended, log = end(start(free_port(), command, **settings))
    (line,) = log.splitlines()
    assert ended == status
    assert named in line
    assert "too-short" not in line


@pytest.mark.parametrize("command", [APP, GUNICORN])
def test_standard_streams_that_are_closed_are_never_those_of_a_connection(command):
    port = free_port()
    closing = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = start(port, ("-c", closing, *command), processes="2", models=MODELS)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {os.devnull}
    finally:
        process.terminate()
        status, _ = end(process)
    assert status == 0


@pytest.mark.parametrize("command", [APP, GUNICORN])
@pytest.mark.parametrize("sent", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGHUP, signal.SIGTERM]])
def test_a_signal_while_pytorch_is_imported_ends_the_process_with_status_0_and_nothing(command, sent):
    process = start(free_port(), command)
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():
        assert process.poll() is None
    for number in sent:
        process.send_signal(number)
    assert end(process) == (0, "")


def test_a_port_in_use_ends_the_start_with_status_1_and_names_the_settings():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, log = end(start(taken.getsockname()[1]))
    assert status == 1
    assert "DIGITS_HOST=127.0.0.1 DIGITS_PORT=" in log


@pytest.mark.parametrize(
    ("content", "named"), [(b"DIGITS_SURPRISE=1\n", "DIGITS_SURPRISE: "), (b"DIGITS_PORT=\xff\n", "digits.env: ")]
)
def test_a_bad_settings_file_ends_the_start_with_status_2_and_one_line_that_names_the_fault(
    tmp_path, monkeypatch, capsys, content, named
):
    (tmp_path / "digits.env").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["app"])
    with pytest.raises(SystemExit, match="2"):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(named)


def test_requests_sent_before_sigterm_are_answered_and_the_process_ends_with_status_0():
    with running(models=MODELS, max_batch_rows="1", shutdown_lag_s="0", **IN_ORDER) as service, ExitStack() as stack:
        callers = stack.enter_context(ThreadPoolExecutor(8))

        def ask() -> int:
            return httpx.post(f"{service.url}/generate", json={"model": "gan", "n": 64}, timeout=60).status_code

        asked = [callers.submit(ask) for _ in range(8)]
        wait_until_started(service, 8)  # one row a batch, in turns: all have begun, none has ended
        service.process.send_signal(signal.SIGSTOP)
        # The system accepts these connections, and the process finds them together with the signal.
        connections = [stack.enter_context(socket.create_connection(address_of(service), 60)) for _ in range(50)]
        for connection in connections:
            connection.sendall(REQUEST)
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGCONT)
        assert {connection.recv(12) for connection in connections} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        assert [answer.result() for answer in asked] == [200] * 8
        assert service.process.wait(60) == 0


def test_after_sigterm_requests_are_served_for_the_lag_and_a_second_sigterm_ends_the_process_with_status_1():
    with running(models=MODELS, shutdown_lag_s="1000", **IN_ORDER) as service:
        service.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{service.url}/readyz", timeout=60).status_code == 503)

        def generate() -> httpx.Response:
            return httpx.post(f"{service.url}/generate", json={}, timeout=60)

        until(lambda: generate().headers.get("connection") == "close")  # the next request goes to another instance
        assert generate().status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 1


def test_when_the_grace_is_over_waiting_clients_are_told_and_no_client_keeps_the_process():
    settings = {"receive_timeout_s": "3600", "shutdown_grace_s": "10", "shutdown_lag_s": "0", "max_batch_rows": "1"}
    with running(models=MODELS, workers="1", **settings) as service, ExitStack() as stack:
        callers = stack.enter_context(ThreadPoolExecutor(16))
        large = b"GET /interpolate?steps=256&scale=16 HTTP/1.1\r\nHost: x\r\n\r\n"
        for number in range(12):
            connection = stack.enter_context(socket.create_connection(address_of(service)))
            connection.sendall((b"", REQUEST[:20], REQUEST[:-1], large)[number % 4])

        def ask() -> httpx.Response:
            return httpx.post(f"{service.url}/generate", json={"model": "gan", "n": 128, "seed": 1}, timeout=600)

        asked = [callers.submit(ask) for _ in range(16)]
        wait_until_started(service, 16)
        service.process.send_signal(signal.SIGTERM)
        answers = [answer.result() for answer in asked]
        assert service.process.wait(60) == 0
    for answer in answers:
        assert answer.status_code in {200, 503}
        if answer.status_code == 503:
            assert answer.json()["code"] == "draining"
            assert answer.headers["retry-after"] in {"1", "2", "3"}


BLOCKED = """
import time
from app.server.environment import listen
from app.server.process import Server
from app.settings import Settings

class Blocked(Server):
    async def main_loop(self):
        print("up", flush=True)
        time.sleep(3600)  # not asyncio's: the event loop hangs

settings = Settings(port=0, shutdown_grace_s=1)
Blocked(settings, listen(settings)).run(sockets=[])
"""


def test_an_event_loop_that_hangs_cannot_keep_the_process_and_the_log_says_where_it_hangs():
    command = [sys.executable, "-c", BLOCKED]
    environment = os.environ | {"DIGITS_MODELS_DIR": str(ROOT / "models"), "DIGITS_DEVICE": "cpu"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        status, log = end(process)
    assert status == 1
    assert "in main_loop" in log

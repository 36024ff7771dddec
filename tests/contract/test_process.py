"""`python -m app` from its start to its end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.conftest import ROOT
from tests.contract.process import free_port, running, start


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and log of a process that ends by itself."""
    try:
        _, log = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, log


# Who does not end in order has an hour before it is made to, which no test waits for.
IN_ORDER = {"shutdown_grace_s": "3600"}


def test_a_served_image_survives_a_restart_and_sigterm_ends_with_status_0():
    answers = []
    for _ in range(2):
        with running(**IN_ORDER) as service:
            answers.append(httpx.post(f"{service.url}/generate", json={"n": 3, "seed": 7}, timeout=60).content)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0
    assert answers[0] == answers[1]


def accepted(url: str) -> float:
    """Callers whose first rows for the GAN's generator were taken out of the queue so far."""
    page = httpx.get(f"{url}/metrics").text
    name = 'digits_queue_seconds_count{capability="generate",model="gan"} '
    return float(next(line for line in page.splitlines() if line.startswith(name)).removeprefix(name))


def test_accepted_requests_are_answered_before_the_process_ends():
    with running(max_batch_rows="1", **IN_ORDER) as service, ThreadPoolExecutor(8) as callers:

        def ask() -> int:
            body = {"model": "gan", "n": 64}
            return httpx.post(f"{service.url}/generate", json=body, timeout=60).status_code

        asked = [callers.submit(ask) for _ in range(8)]
        while accepted(service.url) < 8:  # one row a batch, in turns: all are served a little
            pass
        service.process.send_signal(signal.SIGTERM)
        assert [answer.result() for answer in asked] == [200] * 8
        assert service.process.wait(30) == 0


@pytest.mark.parametrize("kind", ["absent", "truncated"])
def test_a_bad_checkpoint_ends_the_process_with_status_1_and_one_line(tmp_path, kind):
    models = tmp_path / "models"
    if kind == "truncated":
        shutil.copytree(ROOT / "models", models)
        archive = next((models / "gan").glob("*.pt"))
        archive.write_bytes(archive.read_bytes()[:1000])
    status, log = end(start(free_port(), models_dir=str(models)))
    assert status == 1
    assert "Traceback" not in log
    lines = [line for line in log.splitlines() if "cannot start" in line]
    assert len(lines) == 1
    assert str(models) in lines[0]


def test_an_absent_device_ends_the_process_with_status_1():
    status, log = end(start(free_port(), device="cuda:99"))
    assert status == 1
    assert "cannot start: device 'cuda:99' cannot be used" in log
    assert "Traceback" not in log


def test_settings_that_contradict_each_other_end_the_process_with_status_2():
    status, log = end(start(free_port(), max_queued_rows="16"))
    assert status == 2
    assert "DIGITS_MAX_QUEUED_ROWS is below DIGITS_MAX_IMAGES" in log


def test_a_bad_setting_ends_the_process_with_status_2_naming_it():
    status, log = end(start(free_port(), max_images="many"))
    assert status == 2
    assert log.startswith("DIGITS_MAX_IMAGES: ")
    assert "Traceback" not in log


def test_a_port_in_use_ends_the_process_with_a_status():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, log = end(start(taken.getsockname()[1]))
    assert status == 1
    assert "cannot start: nothing can listen at DIGITS_HOST=127.0.0.1 DIGITS_PORT=" in log


def test_an_address_that_is_none_ends_the_process_with_status_1():
    status, log = end(start(free_port(), host="256.0.0.1"))
    assert status == 1
    assert "cannot start: nothing can listen at DIGITS_HOST=256.0.0.1" in log


def test_an_empty_setting_is_an_unset_one():
    with running(default_model="", max_images="") as service:
        assert httpx.post(f"{service.url}/generate", json={}).status_code == 200


def test_whoever_still_waits_when_the_grace_is_over_is_told_to_come_back():
    with running(max_batch_rows="1", shutdown_grace_s="1", workers="1") as service, ThreadPoolExecutor(16) as callers:

        def ask() -> httpx.Response:
            return httpx.post(f"{service.url}/generate", json={"model": "gan", "n": 256}, timeout=60)

        asked = [callers.submit(ask) for _ in range(16)]
        while accepted(service.url) < 16:
            pass
        service.process.send_signal(signal.SIGTERM)
        answers = [answer.result() for answer in asked]
        assert service.process.wait(30) == 0
    late = [answer for answer in answers if answer.status_code != 200]
    assert late
    for answer in late:
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert answer.json()["code"] == "draining"


def readiness_is(url: str, status: int) -> None:
    """Until readiness says so: another process can only be asked."""
    while httpx.get(f"{url}/readyz", timeout=5).status_code != status:
        pass


def test_after_sigterm_readiness_is_red_while_requests_are_still_served():
    with running(shutdown_lag_s="3000", shutdown_grace_s="3600") as service:
        service.process.send_signal(signal.SIGTERM)
        readiness_is(service.url, 503)
        answer = httpx.post(f"{service.url}/generate", json={}, timeout=60)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"  # the next one goes to somebody else
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 1


def test_callers_who_hold_connections_cannot_hold_the_end():
    whole = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{"
    large = b"GET /interpolate?steps=256&scale=16 HTTP/1.1\r\nHost: x\r\n\r\n"
    settings = {"receive_timeout_s": "3600", "shutdown_grace_s": "3", "shutdown_lag_s": "0"}
    with running(**settings) as service, ExitStack() as stack:
        address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
        callers = [stack.enter_context(socket.create_connection(address)) for _ in range(12)]
        for number, sent in enumerate((b"", whole[:20], whole, large)):
            for caller in callers[number::4]:
                caller.sendall(sent)
        assert httpx.post(f"{service.url}/generate", json={}).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0


def test_whoever_connected_before_the_end_has_an_answer():
    body = b'{"model": "vae"}'
    request = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    with running(shutdown_lag_s="0", **IN_ORDER) as service, ExitStack() as stack:
        address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
        service.process.send_signal(signal.SIGSTOP)
        # The system makes these connections, and the process finds them together with the signal.
        callers = [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
        for caller in callers:
            caller.sendall(request % (len(body), body))
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGCONT)
        statuses = {caller.recv(12) for caller in callers}
        assert service.process.wait(60) == 0
    assert statuses <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}


BLOCKED = """
import time
from app.server.process import Server
from app.settings import Settings

class Blocked(Server):
    async def main_loop(self):
        print("up", flush=True)
        time.sleep(3600)  # not asyncio's: whatever keeps the loop

Blocked(Settings(port=int(__import__("sys").argv[1]), shutdown_grace_s=1)).run()
"""


def test_an_event_loop_that_is_kept_cannot_hold_the_end():
    command = [sys.executable, "-c", BLOCKED, str(free_port())]
    environment = os.environ | {"DIGITS_MODELS_DIR": str(ROOT / "models"), "DIGITS_DEVICE": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

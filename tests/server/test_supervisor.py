"""A service of two processes from its start to its end."""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.reading import metric, series
from tests.conftest import ROOT
from tests.contract.process import GUNICORN, Service, free_port, running, start, until, wait_until_ready

SEEDED = {"model": "vae", "n": 3, "seed": 5}
MODELS = ("gan", "vae")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two of the shipped checkpoints."""
    for name in MODELS:
        shutil.copytree(ROOT / "models" / name, tmp_path / "models" / name)
    return tmp_path / "models"


@pytest.fixture(scope="module")
def lasting() -> Iterator[Service]:
    """A service whose models do not change. Tests leave it with two processes."""
    with running(processes="2", worker_checks="3", models=",".join(MODELS)) as service:
        yield service


@pytest.fixture
def pair(models: Path) -> Iterator[Service]:
    with running(processes="2", models_dir=str(models)) as service:
        yield service


def processes_of(service: Service) -> set[int]:
    """The ids of the processes under the supervisor."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


def all_ended(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def generate(service: Service) -> dict[str, Any]:
    """An answer over a new connection, which any process may serve."""
    answer = httpx.post(f"{service.url}/generate", json=SEEDED, timeout=60)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def page(service: Service) -> str:
    return httpx.get(f"{service.url}/metrics", timeout=60).text


def loaded(service: Service) -> list[str]:
    models: list[str] = httpx.get(f"{service.url}/readyz", timeout=60).json()["models"]
    return models


def images(service: Service) -> float:
    return metric(page(service), "digits_images_total", model="vae", operation="generate")


def test_any_process_gives_the_same_bytes_and_the_metrics_of_all(lasting):
    generate(lasting)
    before = images(lasting)
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: generate(lasting), range(64)))
    assert all(answer == answers[0] for answer in answers)
    for _ in range(8):
        text = page(lasting)
        assert metric(text, "digits_images_total", model="vae", operation="generate") == before + 3 * 64
        assert metric(text, "digits_processes") == metric(text, "digits_processes_limit") == 2
        assert metric(text, "digits_ready") == 1
        for process in ("0", "1"):
            assert f'digits_process_rows_in_flight{{process="{process}"}}' in series(text)
            assert metric(text, "digits_process_cpu_seconds_total", process=process) > 0
        assert metric(text, "digits_requests_in_flight") == 0


def test_a_bound_is_shared_by_all_processes(models):
    with running(processes="2", models_dir=str(models), max_queued_rows="256", max_images="256") as service:
        large = {"model": "gan", "n": 256, "seed": 1}

        def status(_: int) -> int:
            return httpx.post(f"{service.url}/generate", json=large, timeout=60).status_code

        with ThreadPoolExecutor(16) as callers:
            statuses = list(callers.map(status, range(32)))
        assert set(statuses) == {200, 503}


def test_a_process_that_was_killed_is_replaced_and_its_metrics_are_kept(lasting):
    for _ in range(8):
        generate(lasting)
    before, killed = images(lasting), min(processes_of(lasting))
    replacements = metric(page(lasting), "digits_process_replacements_total")
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in processes_of(lasting))
    until(lambda: len(processes_of(lasting)) == 2 and metric(page(lasting), "digits_processes") == 2)
    generate(lasting)
    assert images(lasting) == before + 3
    assert metric(page(lasting), "digits_process_replacements_total") == replacements + 1


def test_a_process_that_hangs_is_replaced(lasting):
    hung = min(processes_of(lasting))
    os.kill(hung, signal.SIGSTOP)
    until(lambda: hung not in processes_of(lasting))
    until(lambda: len(processes_of(lasting)) == 2 and metric(page(lasting), "digits_processes") == 2)


def test_a_reload_is_of_all_processes_or_of_none(pair, models):
    (models / "gan").rename(models.parent / "gan")
    pair.process.send_signal(signal.SIGHUP)
    until(lambda: metric(page(pair), "digits_reloads_total", outcome="swapped") == 1)
    assert metric(page(pair), "digits_last_reload_successful") == 1
    until(lambda: all(loaded(pair) == ["vae"] for _ in range(16)))
    archive = next((models / "vae").glob("*.pt"))
    os.truncate(archive, 1000)
    pair.process.send_signal(signal.SIGHUP)
    until(lambda: metric(page(pair), "digits_reloads_total", outcome="refused") == 1)
    assert metric(page(pair), "digits_last_reload_successful") == 0
    assert generate(pair)["seed"] == 5
    assert len(processes_of(pair)) == 2


def test_a_replaced_process_never_serves_other_models_than_the_rest(pair, models):
    (models / "gan").rename(models.parent / "gan")
    os.kill(min(processes_of(pair)), signal.SIGKILL)
    until(lambda: loaded(pair) == ["vae"])  # the change on disk made all processes reload
    until(lambda: all(loaded(pair) == ["vae"] for _ in range(32)))


def test_a_signal_ends_all_processes_and_accepted_requests_are_answered(pair):
    pids = processes_of(pair)
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(generate, pair) for _ in range(8)]
        until(lambda: "digits_images_total{" in page(pair))
        pair.process.terminate()
        assert {answer.result()["seed"] for answer in answers} == {5}
    assert pair.process.wait(60) == 0
    assert all_ended(pids)


def test_when_the_supervisor_is_killed_everything_ends_and_can_be_started_again(models):
    port = free_port()
    settings = {"processes": "2", "models_dir": str(models)}
    for _ in range(2):
        process = start(port, **settings)
        service = Service(process, f"http://127.0.0.1:{port}")
        wait_until_ready(process, service.url)
        pids = processes_of(service)
        process.kill()
        process.communicate()
        until(partial(all_ended, pids))


@pytest.mark.parametrize("processes", [1, 2])
def test_gunicorn_serves_with_the_committed_configuration(models, processes):
    with running(GUNICORN, processes=str(processes), models_dir=str(models)) as service:
        assert len(processes_of(service)) == metric(page(service), "digits_processes") == processes
        assert generate(service)["seed"] == 5
    assert service.process.returncode == 0


def test_a_start_that_fails_in_the_processes_ends_the_service():
    process = start(free_port(), processes="2", device="cuda:99")
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in log
    assert "cuda:99" in log

"""Faults of networks while they serve, through the whole service: real archives that fail when a latent says so."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faulty import HANG, NAN, RAISE, write_faulty
from tests.api.reading import problem_of
from tests.conftest import ROOT, serving
from tests.contract.process import running


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A directory with one checkpoint, `gan`, that fails on marked latents."""
    directory: Path = tmp_path_factory.mktemp("models")
    write_faulty(ROOT / "models" / "gan", directory / "gan")
    return directory


def marked(mark: float, width: int) -> dict[str, Any]:
    return {"latents": [[mark] + [0.0] * (width - 1)]}


def width_of(client: httpx.Client) -> int:
    width: int = client.get("/models").json()["models"][0]["latent_dim"]
    return width


@pytest.mark.parametrize("mark", [RAISE, NAN])
def test_a_row_that_breaks_its_forward_pass_fails_its_caller_and_no_other(models, mark):
    with serving(models_dir=models, workers=1) as client, ThreadPoolExecutor(32) as callers:
        width = width_of(client)
        alone = [client.post("/generate", json={"n": 2, "seed": seed}).content for seed in range(24)]

        def ask(number: int) -> httpx.Response:
            body = marked(mark, width) if number % 4 == 0 else {"n": 2, "seed": number - number // 4 - 1}
            return client.post("/generate", json=body)

        answers = list(callers.map(ask, range(32)))
        for number, answer in enumerate(answers):
            if number % 4 == 0:
                problem_of(answer, 500, "inference_failed")
                assert "Traceback" not in answer.text
            else:
                assert answer.content == alone[number - number // 4 - 1]


def test_a_hung_forward_pass_is_told_and_ends_the_process_with_status_1(models):
    with running(models_dir=str(models), worker_checks="2", workers="1") as service, ThreadPoolExecutor(2) as callers:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            width = width_of(client)
            hanging = callers.submit(client.post, "/generate", json=marked(HANG, width))
            waiting = callers.submit(client.post, "/generate", json={})
            for answer in (hanging.result(), waiting.result()):
                problem_of(answer, 503, "worker_lost")
                assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert service.process.wait(60) == 1


def other(directory: Path) -> None:
    """Another checkpoint of the same name: other weights, and so another digest."""
    shutil.rmtree(directory / "gan")
    shutil.copytree(ROOT / "models" / "gan", directory / "gan")


def metric_of(client: httpx.Client, line: str) -> float:
    page = client.get("/metrics").text.splitlines()
    return float(next(each for each in page if each.startswith(line)).rsplit(" ", 1)[1])


def wait_for(client: httpx.Client, line: str, value: float) -> None:
    """Until a metric says so: another process can only be asked."""
    while metric_of(client, line) < value:
        pass


def test_sighup_swaps_the_models_and_no_request_fails(models, tmp_path):
    directory = tmp_path / "models"
    shutil.copytree(models, directory)
    with ExitStack() as stack:
        service = stack.enter_context(running(models_dir=str(directory)))
        callers = stack.enter_context(ThreadPoolExecutor(4))
        client = stack.enter_context(httpx.Client(base_url=service.url, timeout=60))
        before = client.post("/generate", json={"seed": 1}).json()["digest"]
        ended: list[int] = []

        def ask_on() -> set[str]:
            seen = set()
            while not ended:
                answer = client.post("/generate", json={"seed": 1})
                assert answer.status_code == 200, answer.text
                seen.add(answer.json()["digest"])
            return seen

        asked = [callers.submit(ask_on) for _ in range(4)]
        other(directory)
        service.process.send_signal(signal.SIGHUP)
        wait_for(client, 'digits_reloads_total{outcome="swapped"}', 1)
        after = client.post("/generate", json={"seed": 1}).json()["digest"]
        ended.append(1)
        assert after != before
        assert set.union(*(each.result() for each in asked)) <= {before, after}
        assert f'digest="{before}"' not in client.get("/metrics").text


@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_a_reload_of_a_bad_checkpoint_leaves_the_old_one_serving(models, tmp_path, damage):
    directory = tmp_path / "models"
    shutil.copytree(models, directory)
    with running(models_dir=str(directory)) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        before = client.post("/generate", json={"seed": 1}).content
        (archive,) = (directory / "gan").glob("*.pt")
        os.truncate(archive, 1000) if damage == "truncated" else archive.unlink()
        service.process.send_signal(signal.SIGHUP)
        wait_for(client, 'digits_reloads_total{outcome="refused"}', 1)
        assert client.get("/readyz").status_code == 200
        assert client.post("/generate", json={"seed": 1}).content == before
        # And the next good one is taken.
        other(directory)
        service.process.send_signal(signal.SIGHUP)
        wait_for(client, 'digits_reloads_total{outcome="swapped"}', 1)
        assert client.post("/generate", json={"seed": 1}).content != before

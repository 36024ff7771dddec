"""Faults while the service runs, injected by real archives that fail when a latent says so, and reloads."""

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
from tests.api.reading import measured, problem_of
from tests.conftest import ROOT, serving
from tests.contract.process import running, until


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A directory with one checkpoint, `gan`, that fails on marked latents."""
    directory: Path = tmp_path_factory.mktemp("models")
    write_faulty(ROOT / "models" / "gan", directory / "gan")
    return directory


def marked(mark: float, client: httpx.Client) -> dict[str, Any]:
    width: int = client.get("/models").json()["models"][0]["latent_dim"]
    return {"latents": [[mark] + [0.0] * (width - 1)]}


def test_a_row_that_breaks_its_forward_pass_fails_its_request_and_no_other(models):
    with serving(models_dir=models, workers=1) as client, ThreadPoolExecutor(32) as callers:
        faulty = [marked(mark, client) for mark in (RAISE, NAN)]
        alone = [client.post("/generate", json={"n": 2, "seed": seed}).content for seed in range(32)]

        def ask(number: int) -> httpx.Response:
            body = faulty[number % 2] if number % 8 < 2 else {"n": 2, "seed": number}
            return client.post("/generate", json=body)

        for number, answer in enumerate(callers.map(ask, range(32))):
            if number % 8 < 2:
                problem_of(answer, 500, "inference_failed")
                assert "Traceback" not in answer.text
            else:
                assert answer.content == alone[number]


def test_a_forward_pass_that_hangs_is_reported_and_ends_the_process_with_status_1(models):
    with running(models_dir=str(models), worker_checks="2", workers="1") as service, ThreadPoolExecutor(2) as callers:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            hanging = callers.submit(client.post, "/generate", json=marked(HANG, client))
            until(lambda: measured(client, "rows_in_flight") == 1)  # another request could pass it
            waiting = callers.submit(client.post, "/generate", json={})
            for answer in (hanging.result(), waiting.result()):
                problem_of(answer, 503, "worker_lost")
                assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert service.process.wait(60) == 1


def test_sighup_keeps_the_models_when_a_checkpoint_is_bad_and_swaps_good_ones_without_a_failed_request(
    models, tmp_path
):
    directory = tmp_path / "models"
    shutil.copytree(models, directory)
    with ExitStack() as stack:
        service = stack.enter_context(running(models_dir=str(directory)))
        callers = stack.enter_context(ThreadPoolExecutor(4))
        client = stack.enter_context(httpx.Client(base_url=service.url, timeout=60))
        before = client.post("/generate", json={"seed": 1}).json()
        ended: list[bool] = []

        def ask_on() -> set[str]:
            digests = set()
            while not ended:
                answer = client.post("/generate", json={"seed": 1})
                assert answer.status_code == 200, answer.text
                digests.add(answer.json()["digest"])
            return digests

        asked = [callers.submit(ask_on) for _ in range(4)]
        os.truncate(directory / "gan" / "archive.pt", 1000)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: measured(client, "reloads_total", outcome="refused") == 1)
        assert client.get("/readyz").status_code == 200
        assert client.post("/generate", json={"seed": 1}).json()["images"] == before["images"]
        # The next good one is taken: other weights, and so another digest.
        shutil.rmtree(directory / "gan")
        shutil.copytree(ROOT / "models" / "gan", directory / "gan")
        service.process.send_signal(signal.SIGHUP)
        until(lambda: measured(client, "reloads_total", outcome="swapped") == 1)
        after = client.post("/generate", json={"seed": 1}).json()
        ended.append(True)
        assert after["digest"] != before["digest"]
        assert set.union(*(each.result() for each in asked)) <= {before["digest"], after["digest"]}
        assert f'digest="{before["digest"]}"' not in client.get("/metrics").text

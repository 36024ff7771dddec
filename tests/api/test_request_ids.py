"""The id of a request, in its answer and in every line of the log about it; the access log."""

import json
import re
from typing import Any

import pytest

from app.inference.batching import Chunk
from app.logs import JsonLines
from app.operations.generate import GenerateJob
from tests.conftest import serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def observed(tiny_models):
    with serving(models_dir=tiny_models, access_log=True) as client:
        yield client


@pytest.fixture
def log(caplog):
    """Reads the lines of the log."""
    caplog.handler.setFormatter(JsonLines())
    caplog.set_level("INFO")
    return lambda: [json.loads(line) for line in caplog.text.splitlines()]


@pytest.mark.parametrize("own", ["a", "0b5fd6e8-2f61-4b0c-9f0e-d4b3a1c7e2aa", "job_7.step-3", "x" * 64])
def test_a_well_formed_id_of_the_caller_is_that_of_the_request(client, own):
    trace = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = client.post("/generate", json={"n": 0}, headers={"X-Request-Id": own} | trace)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == own


@pytest.mark.parametrize("own", ["", "x" * 65, "a b", "a\tb", "a/b", 'a"b', "é", "{id}", "a,b"])
def test_another_id_is_replaced_and_not_repeated(client, own):
    answer = client.get("/models", headers=[("X-Request-Id", own.encode("latin-1"))])
    assert answer.status_code == 200
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_the_trace_of_the_caller_is_the_id_of_its_requests(client):
    answer = client.get("/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.headers["x-request-id"] == TRACE


@pytest.mark.parametrize(
    "trace",
    [
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
    ],
)
def test_a_malformed_trace_is_ignored(client, trace):
    given = client.get("/models", headers={"traceparent": trace}).headers["x-request-id"]
    assert given not in trace
    assert re.fullmatch("[0-9a-f]{32}", given)


def test_the_access_log_has_one_line_for_each_request_with_its_id(observed, log):
    asked: list[tuple[str, str, dict[str, Any], int, str | None]] = [
        ("POST", "/generate", {"json": {}}, 200, None),
        ("POST", "/generate?secret=1", {"json": {}}, 422, "invalid_request"),
        ("HEAD", "/models", {}, 200, None),
        ("GET", "/" + "n" * 1000, {}, 404, "not_found"),
    ]
    answers = [observed.request(method, path, **named) for method, path, named, _, _ in asked]
    observed.get("/livez")  # the line of an answer is written just after it, and before the next one
    lines = [line for line in log() if line["logger"] == "app.access" and line["path"] != "/livez"]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    for line, (method, path, _, status, code) in zip(lines, asked, strict=True):
        assert (line["method"], line["status"], line.get("code")) == (method, status, code)
        assert line["path"][:100] == path.partition("?")[0][:100]
        assert len(line["path"]) <= 200
        assert line["seconds"] > 0
        assert "secret" not in str(line)


def test_without_the_setting_requests_are_not_logged(client, log):
    for _ in range(2):
        client.get("/unlogged")
    # The log may also get the last line of the service of the test before.
    assert not [line for line in log() if line["logger"] == "app.access" and line["path"] == "/unlogged"]


def test_a_request_whose_rows_cannot_be_computed_is_logged_with_its_id(observed, log, monkeypatch):
    def fail(*_: object) -> list[Chunk[GenerateJob]]:
        raise RuntimeError("a secret")

    monkeypatch.setattr(GenerateJob, "compute", fail)
    answer = observed.post("/generate", json={}, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    assert [line["level"] for line in log() if line.get("request_id") == "mine"].count("error") == 1

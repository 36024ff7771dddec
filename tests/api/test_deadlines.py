"""X-Request-Timeout: how long a caller waits, within what the service allows."""

import asyncio

import pytest

from app.api.deadlines import in_time
from app.errors import DeadlineExceeded
from tests.api.reading import problem_of
from tests.conftest import serving

OPERATIONS = [
    ("post", "/generate"),
    ("post", "/reconstruct"),
    ("get", "/interpolate"),
    ("post", "/interpolate"),
    ("post", "/score"),
]


def test_a_caller_that_waits_long_enough_is_answered(client):
    for given in ("30", "2.5", "1000000"):
        answer = client.post("/generate", json={}, headers={"X-Request-Timeout": given})
        assert answer.status_code == 200


@pytest.mark.parametrize("body", [{}, {"n": 64}])
def test_a_time_that_is_over_is_a_504(client, body):
    answer = client.post("/generate", json=body, headers={"X-Request-Timeout": "0.000000001"})
    problem_of(answer, 504, "deadline_exceeded")


def test_no_time_beyond_the_services_own_can_be_asked_for():
    with serving(request_timeout_s=1e-9) as client:
        for headers in ({}, {"X-Request-Timeout": "1000"}):
            problem_of(client.post("/generate", json={}, headers=headers), 504, "deadline_exceeded")


@pytest.mark.parametrize("given", ["0", "0.0", "-1", "+1", "1e3", "", "soon", "nan", "inf", "1,2", ".5", "1" * 400])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(client, given):
    answer = client.post("/generate", json={}, headers={"X-Request-Timeout": given})
    body = problem_of(answer, 422, "invalid_request")
    assert body["detail"] == "X-Request-Timeout is one number of seconds above 0"


def test_a_timeout_given_twice_is_refused(client):
    headers = [("X-Request-Timeout", "1"), ("X-Request-Timeout", "2")]
    problem_of(client.post("/generate", json={}, headers=headers), 422, "invalid_request")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_that_computes_takes_and_documents_it(client, digit, method, path):
    operation = client.get("/openapi.json").json()["paths"][path][method]
    assert [each["name"] for each in operation["parameters"]].count("X-Request-Timeout") == 1
    headers = {"X-Request-Timeout": "0.000000001"}
    if path == "/reconstruct":
        answer = client.post(path, content=digit, headers=headers | {"Content-Type": "image/png"})
    else:
        answer = client.request(method, path, headers=headers, **({"json": {}} if method == "post" else {}))
    problem_of(answer, 504, "deadline_exceeded")


def test_work_off_the_networks_is_cancelled_at_the_deadline():
    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await in_time(asyncio.sleep(3600), 0)
        assert await in_time(asyncio.sleep(0, 7), asyncio.get_running_loop().time() + 3600) == 7

    asyncio.run(scenario())

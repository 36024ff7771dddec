"""X-Request-Timeout. Values that are refused are tested in tests/contract/test_corpus.py."""

import pytest

from tests.api.reading import problem_of
from tests.conftest import serving

EXPIRED = {"X-Request-Timeout": "0.000000001"}


@pytest.mark.parametrize("value", ["30", "2.5", "1000000"])
def test_an_answer_that_is_computed_in_time_is_sent(client, value):
    assert client.post("/generate", json={}, headers={"X-Request-Timeout": value}).status_code == 200


def test_every_operation_has_a_deadline(client, digit):
    answers = [client.post(path, json={}, headers=EXPIRED) for path in ("/generate", "/score", "/interpolate")]
    answers.append(client.get("/interpolate", headers=EXPIRED))
    answers.append(client.post("/generate", json={"n": 64}, headers=EXPIRED))
    for path, files in (("/reconstruct", {"file": digit}), ("/score", {"files": digit})):
        answers.append(client.post(path, files=files, headers=EXPIRED))
    answers.append(client.post("/interpolate", files=[("files", digit)] * 2, headers=EXPIRED))
    for answer in answers:
        problem_of(answer, 504, "deadline_exceeded")


def test_a_caller_cannot_extend_the_limit_of_the_service(tiny_models):
    with serving(models_dir=tiny_models, request_timeout_s=1e-9) as client:
        for headers in ({}, {"X-Request-Timeout": "1000"}):
            problem_of(client.post("/generate", json={}, headers=headers), 504, "deadline_exceeded")

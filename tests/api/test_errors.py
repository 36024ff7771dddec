"""Errors that belong to no single operation, and the form of all of them."""

import json
import re

import pytest

from app import errors
from app.api.call import Call
from app.logs import JsonLines
from tests.api.reading import problem_of


@pytest.mark.parametrize("path", ["/generates", "/generate/", "/models/vae/archive", "/..%2f..%2fetc/passwd"])
def test_an_unknown_path_is_not_found(client, path):
    problem_of(client.post(path, json={}), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("DELETE", "/models/vae", "GET, HEAD"),
        ("PUT", "/interpolate", "GET, HEAD, POST"),
        ("HEAD", "/score", "POST"),
    ],
)
def test_an_unsupported_method_is_refused_naming_those_that_are_supported(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert allowed in problem_of(answer, 405, "method_not_allowed")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "media_type"),
    [
        *(("POST", path, "text/html") for path in ("/generate", "/reconstruct", "/interpolate", "/score")),
        *(("POST", path, "image/png") for path in ("/score", "/classify")),
        *(("GET", path, "image/png") for path in ("/models", "/models/vae")),
    ],
)
def test_a_media_type_that_no_answer_of_the_operation_has_is_not_acceptable(client, method, path, media_type):
    problem_of(client.request(method, path, headers={"Accept": media_type}), 406, "not_acceptable")


def test_an_unknown_model_is_not_found_and_its_name_not_repeated(client, digit):
    answers = [client.post(path, json={"model": "nobody"}) for path in ("/generate", "/interpolate", "/score")]
    answers += [client.post("/score", json={"generator": "nobody"})]
    answers += [client.get("/interpolate?model=nobody"), client.get("/models/nobody")]
    answers += [client.post(f"{path}?model=nobody", files={"file": digit}) for path in ("/reconstruct", "/interpolate")]
    for answer in answers:
        assert "vae" in problem_of(answer, 404, "model_not_found")["detail"], "the loaded models are listed"
        assert "nobody" not in answer.text


@pytest.mark.parametrize("headers", [{"X-Large": "x" * 33_000}, {f"X-{number}": "x" for number in range(100)}])
def test_headers_over_the_limit_are_refused(client, headers):
    problem_of(client.get("/livez", headers=headers), 431, "headers_too_large")


def test_a_fault_of_the_request_is_located_and_its_input_not_repeated(client):
    answer = client.post("/generate", json={"n": "not-a-number", "my-own-field": 1})
    faults = problem_of(answer, 422, "invalid_request")["errors"]
    assert [fault["location"] for fault in faults] == [["body", "n"], ["body"]]
    assert answer.json()["detail"].startswith("n: ")
    assert all(fault["message"] for fault in faults)
    assert "not-a-number" not in answer.text
    assert "my-own-field" not in answer.text


@pytest.mark.parametrize("label", [{"name": "3"}, ["3", None], True, [], "3" * 65])
def test_a_label_of_another_form_is_one_fault(client, label):
    body = problem_of(client.post("/generate", json={"label": label}), 422, "invalid_request")
    assert [fault["location"] for fault in body["errors"]] == [["body", "label"]]


def test_the_first_of_many_faults_are_listed(client):
    names = ("model", "n", "seed", "first", "latents", "scale", "label", "prior", "temperature", "truncation")
    answer = client.post("/generate", json={name: {} for name in names})
    assert len(problem_of(answer, 422, "invalid_request")["errors"]) == 8


def test_a_list_of_wrong_values_is_one_fault(client):
    answer = client.post("/generate", json={"latents": [["x"] * 500]})
    (fault,) = problem_of(answer, 422, "invalid_request")["errors"]
    assert fault["location"] == ["body", "latents", 0, 0]


def test_unknown_fields_are_one_fault_that_names_the_known_ones(client, digit):
    misspelt = {f"fieldd{number}": 1 for number in range(60)}
    answers = [
        (client.post("/generate", json=misspelt), {"n", "seed", "first", "latents", "scale"}),
        (client.get("/interpolate", params=misspelt), {"from_seed", "to_seed", "steps", "path"}),
        (client.post("/reconstruct", params=misspelt, files={"file": digit}), {"normalize", "scale", "seed"}),
    ]
    for answer, known in answers:
        body = problem_of(answer, 422, "invalid_request")
        (fault,) = body["errors"]
        assert known <= set(re.findall(r"\w+", fault["message"]))
        assert fault["message"] in body["detail"]
        assert "fieldd" not in answer.text


def test_no_message_has_the_prefix_of_the_validation_library(client, digit):
    answers = [
        client.post("/generate", json={"label": []}),
        client.post("/generate", json={"latents": [[1]], "seed": 1}),
        client.get("/interpolate?steps=many"),
        client.get("/interpolate?label=balanced"),
        client.post("/reconstruct?normalize=yes", files={"file": digit}),
    ]
    for answer in answers:
        assert problem_of(answer, 422, "invalid_request")["errors"]
        assert not re.search("(?i)value ?error|assertion", answer.text)


def test_a_request_for_too_many_images_is_told_of_paging_where_there_is_paging(client):
    paged = [client.post(path, json={"n": 257}) for path in ("/generate", "/score")]
    others = [client.get("/interpolate?steps=257"), client.post("/interpolate", json={"steps": 257})]
    for answer in paged + others:
        detail = problem_of(answer, 422, "invalid_request")["detail"]
        assert "256" in detail
        assert ("`first`" in detail) == (answer in paged)


def test_every_answer_has_an_id_of_its_own(client):
    answers = [client.get("/livez"), client.get("/models"), client.get("/nowhere"), client.post("/generate", json={})]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/models", "/models/vae", "/interpolate?from_seed=1&to_seed=2"])
def test_head_is_get_without_the_content(client, path):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("fault", "status", "code"), [(RuntimeError, 500, "internal_error"), (MemoryError, 503, "out_of_memory")]
)
def test_an_unexpected_error_is_logged_under_the_id_of_the_request_and_not_shown(
    client, monkeypatch, caplog, fault, status, code
):
    def fail(*_: object, **__: object) -> None:
        raise fault("a secret")

    monkeypatch.setattr(Call, "check_count", fail)
    caplog.handler.setFormatter(JsonLines())
    answer = client.post("/generate", json={})
    problem_of(answer, status, code)
    assert "secret" not in answer.text
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert line["trace"].endswith(f"{fault.__name__}: a secret")


def tree(error: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    return [error, *(below for child in error.__subclasses__() for below in tree(child))]


def test_the_tree_in_the_documentation_of_the_module_is_complete_and_its_codes_are_unique():
    drawn = {
        (words[0], words[1], words[2].rstrip(","))
        for line in (errors.__doc__ or "").splitlines()
        if len(words := line.translate(str.maketrans("│├└─", "    ")).split()) >= 3 and words[1].isdigit()
    }
    known = tree(errors.ServiceError)
    assert drawn == {(error.__name__, str(error.status), error.code) for error in known}
    assert len({error.code for error in known}) == len(known)


def test_the_caller_is_the_cause_of_an_error_below_500_and_of_no_other():
    for error in tree(errors.ServiceError):
        assert (errors.CAUSES[error.code] == "caller") == (error.status < 500), error

"""The API key, and the origins of web pages."""

import re

import pytest
from pydantic import ValidationError

from app.api.admission import PROBES
from app.api.call import Call
from app.settings import Settings
from tests.api.conftest import KEY, ORIGIN
from tests.api.reading import metric, problem_of
from tests.conftest import serving

BEARER = {"Authorization": f"Bearer {KEY}"}


def test_every_operation_but_the_probes_requires_the_key_and_documents_it(guarded):
    paths = guarded.get("/openapi.json", headers=BEARER).json()["paths"]
    operations = {(method.upper(), path): found for path, methods in paths.items() for method, found in methods.items()}
    assert {path for _, path in operations} > PROBES
    for (method, path), operation in operations.items():
        answer = guarded.request(method, path.replace("{name}", "plain").replace("{version}", "1"))
        if path in PROBES:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert ("security" in operation) == (path not in PROBES), path


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("DELETE", "/generate"), ("HEAD", "/models")])
def test_without_the_key_every_path_and_method_is_unauthorized(guarded, method, path):
    assert guarded.request(method, path).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_is_accepted(guarded, scheme):
    headers = {"Authorization": f"{scheme} {KEY}"}
    assert guarded.post("/generate", json={}, headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200
    problem_of(guarded.get("/nowhere", headers=headers), 404, "not_found")


@pytest.mark.parametrize(
    "sent",
    [
        *("", KEY, "Bearer", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Bearer {KEY.upper()}"),
        *(f"Bearer {KEY}, Bearer {KEY}", f"Bearer {KEY} {KEY}", "Bearer \xff", "Bearer " + "x" * 20_000),
    ],
)
def test_another_key_or_scheme_is_refused(guarded, sent):
    header = ("Authorization", sent.encode("latin-1"))
    problem_of(guarded.get("/models", headers=[header]), 401, "unauthorized")
    problem_of(guarded.get("/models", headers=[header, ("Authorization", f"Bearer {KEY}")]), 401, "unauthorized")


def test_without_a_key_in_the_settings_none_is_required_or_documented(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path, methods in paths.items() if any("security" in each for each in methods.values())]


@pytest.mark.parametrize(
    "key", ["short", "fifteen-letters", "with spaces in between", 'quote"-and-more-letters', "é" * 16]
)
def test_a_key_that_is_too_short_or_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(ValidationError) as refused:
        Settings(api_key=key)
    assert key not in str(refused.value)


def test_pages_of_listed_origins_can_read_answers_and_others_cannot(guarded, client):
    answer = guarded.get("/livez", headers=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == "https://a.org"
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Seed", "X-From-Seed", "X-To-Seed", "ETag"} <= set(exposed.split(", "))
    assert guarded.get("/models", headers=ORIGIN).headers["access-control-allow-origin"] == "https://a.org"
    for refused in (guarded.get("/livez", headers={"Origin": "https://b.org"}), client.get("/livez", headers=ORIGIN)):
        assert "access-control-allow-origin" not in refused.headers


def test_a_preflight_request_of_a_listed_origin_needs_no_key(guarded):
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = guarded.options("/generate", headers=ORIGIN | preflight)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.org")


@pytest.mark.parametrize(
    "change",
    [
        {"Origin": "https://b.org"},
        {"Access-Control-Request-Method": "DELETE"},
        {"Access-Control-Request-Headers": "x-surprise"},
    ],
)
def test_a_refused_preflight_request_is_a_problem_that_names_what_is_allowed(guarded, change):
    answer = guarded.options("/generate", headers=ORIGIN | {"Access-Control-Request-Method": "POST"} | change)
    detail = problem_of(answer, 400, "bad_request")["detail"]
    assert {"POST", "Authorization"} <= set(re.findall(r"\w+", detail))
    assert not [value for value in change.values() if value in answer.text]
    labels = {"code": "bad_request", "cause": "caller"}
    assert metric(guarded.get("/metrics", headers=BEARER).text, "digits_request_errors_total", **labels) >= 1


def test_pages_of_listed_origins_can_read_every_error(tiny_models, monkeypatch):
    settings = {"api_key": KEY, "cors_origins": "https://a.org", "allowed_hosts": "127.0.0.1"}
    with serving(models_dir=tiny_models, **settings) as client:
        answers = [
            client.get("/models", headers=ORIGIN | {"Host": "b.org"}),
            client.get("/models", headers=ORIGIN | {"X-Large": "x" * 33_000}),
            client.get("/models", headers=ORIGIN),
            client.get("/nowhere", headers=ORIGIN | BEARER),
            client.delete("/models", headers=ORIGIN | BEARER),
        ]
        monkeypatch.setattr(Call, "negotiate", None)
        answers.append(client.get("/models", headers=ORIGIN | BEARER))
    assert [answer.status_code for answer in answers] == [421, 431, 401, 404, 405, 500]
    for answer in answers:
        problem_of(answer, answer.status_code, answer.json()["code"])
        assert answer.headers["access-control-allow-origin"] == "https://a.org"
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("value", ["a.org", "https://a.org/", "*,https://a.org", "null", "https://*"])
def test_settings_refuse_what_is_not_an_origin(value):
    with pytest.raises(ValidationError):
        Settings(cors_origins=value)

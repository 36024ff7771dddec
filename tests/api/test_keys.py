"""Who may ask: callers with the key, and web pages of listed origins."""

import httpx
import pytest
from pydantic import ValidationError

from app.settings import Settings
from tests.api.reading import problem_of
from tests.conftest import serving

KEY = "correct-horse-battery"
OPEN = ["/livez", "/readyz"]
GUARDED = [
    ("POST", "/generate"),
    ("POST", "/reconstruct"),
    ("GET", "/interpolate"),
    ("POST", "/interpolate"),
    ("POST", "/score"),
    ("GET", "/models"),
    ("GET", "/models/vae"),
    ("GET", "/metrics"),
    ("HEAD", "/models"),
]
ORIGIN = {"Origin": "https://a.org"}


@pytest.fixture(scope="module")
def guarded():
    with serving(api_key=KEY, cors_origins="https://a.org") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_the_key_nothing_is_answered(guarded, method, path):
    answer = guarded.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        problem_of(answer, 401, "unauthorized")


def test_every_operation_but_the_probes_is_guarded(guarded):
    paths = guarded.get("/openapi.json").json()["paths"]
    listed = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    concrete = {(method, path.replace("{name}", "vae")) for method, path in listed}
    assert concrete - set(GUARDED) == {("GET", path) for path in OPEN}
    for path, methods in paths.items():
        for operation in methods.values():
            assert ("401" in operation["responses"]) == ("security" in operation) == (path not in OPEN), path


@pytest.mark.parametrize("path", OPEN)
def test_probes_need_no_key(guarded, path):
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_opens_every_route(guarded, scheme):
    headers = {"Authorization": f"{scheme} {KEY}"}
    assert guarded.post("/generate", json={}, headers=headers).status_code == 200
    for method, path in GUARDED:
        if method == "GET":
            assert guarded.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        "",
        KEY,
        "Bearer",
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY}, Bearer {KEY}",
        f"Bearer {KEY} {KEY}",
        "Bearer \xff",
        "Bearer " + "x" * 20_000,
    ],
)
def test_another_key_or_scheme_is_refused(guarded, sent):
    headers = {"Authorization": sent.encode("latin-1")}
    problem_of(guarded.get("/models", headers=headers), 401, "unauthorized")


def test_two_keys_are_refused(guarded):
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
    problem_of(guarded.get("/models", headers=headers), 401, "unauthorized")


def test_without_a_key_in_the_settings_none_is_asked_for(client):
    assert client.get("/models").status_code == 200
    page = client.get("/openapi.json").json()
    assert all("security" not in one for methods in page["paths"].values() for one in methods.values())


@pytest.mark.parametrize(
    "key", ["short", "fifteen-letters", "with spaces in between", 'quote"-and-more-letters', "é" * 16]
)
def test_a_key_that_is_too_short_or_cannot_be_sent_is_no_setting(key):
    with pytest.raises(ValidationError) as refused:
        Settings(api_key=key)
    assert key not in str([error["msg"] for error in refused.value.errors()])


def test_the_key_is_not_shown():
    settings = Settings(api_key=KEY)
    assert KEY not in repr(settings) + str(settings.model_dump())


def test_a_listed_origin_may_read_answers_and_no_other(guarded):
    answer = guarded.get("/livez", headers=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == "https://a.org"
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Seed", "X-From-Seed", "X-To-Seed", "ETag"} <= set(exposed.split(", "))
    assert "access-control-allow-origin" not in guarded.get("/livez", headers={"Origin": "https://b.org"}).headers


def test_a_listed_origin_may_ask_beforehand_without_a_key(guarded):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = guarded.options("/generate", headers=ORIGIN | asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.org"
    assert guarded.options("/generate", headers={"Origin": "https://b.org"} | asked).status_code == 400


def test_without_origins_in_the_settings_nothing_is_said_of_them(client):
    answer = client.get("/livez", headers=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "value", ["a.org", "https://a.org/", "https://a.org/path", "*,https://a.org", "null", "https://*"]
)
def test_what_is_no_origin_is_no_setting(value):
    with pytest.raises(ValidationError):
        Settings(cors_origins=value)


@pytest.fixture(scope="module")
def routed():
    with serving(api_key=KEY) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


BODIES = [
    b"{",
    b"{}{}",
    b'{"n": 0}',
    b'{"n": 2, "seed": 5}',
    b'{"n": 2, "seed": 5, "unknown": 1}',
    b'{"seed": 5, "seed": 6}',
    b'{"model": "nobody"}',
    b'{"label": "eleven"}',
    b'{"seed": 5, "model": "vae", "label": "3", "temperature": 0.5}',
    b'{"pad": "' + b"x" * 20_000 + b'"}',
]
QUERIES = [
    "",
    "seed=5&scale=2&model=vae&normalize=false",
    "seed=5&seed=6",
    "seed=",
    "seed=five",
    "seed=-1&scale=17&unknown=1",
    "normalize=yes",
    "model=nobody",
    "model=gan",
    "label=3",
]


@pytest.mark.parametrize("accept", ["application/json", "image/png", "application/x-npz", "text/html"])
@pytest.mark.parametrize("body", BODIES)
def test_with_and_without_a_key_an_operation_answers_the_same(routed, client, body, accept):
    """With a key it is reached by way of the router, without one past it."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    direct, by_router = (one.post("/generate", content=body, headers=headers) for one in (client, routed))
    assert_same(direct, by_router)


@pytest.mark.parametrize("accept", ["application/json", "image/png", "application/x-npz", "text/html"])
@pytest.mark.parametrize("query", QUERIES)
def test_with_and_without_a_key_an_upload_is_answered_the_same(routed, client, digit, query, accept):
    headers = {"Content-Type": "image/png", "Accept": accept}
    direct, by_router = (one.post(f"/reconstruct?{query}", content=digit, headers=headers) for one in (client, routed))
    assert_same(direct, by_router)


def assert_same(direct: httpx.Response, by_router: httpx.Response) -> None:
    assert direct.status_code == by_router.status_code
    varying = {"x-request-id", "date", "retry-after"}
    assert {name: value for name, value in direct.headers.items() if name not in varying} == {
        name: value for name, value in by_router.headers.items() if name not in varying
    }
    if direct.headers["content-type"] == "application/problem+json":
        assert direct.json() | {"request_id": None} == by_router.json() | {"request_id": None}
    else:
        assert direct.content == by_router.content

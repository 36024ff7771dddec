"""Bodies and queries: media types, strictness, sizes. Multipart bodies have a file of their own."""

import pytest

from tests.api.reading import NPZ, PNG, assert_named, problem_of
from tests.conftest import FIXTURES
from tests.corpus import texts

POSTS = ["/generate", "/normalize", "/reconstruct", "/interpolate", "/score", "/classify", "/upscale"]
JSON_POSTS = ["/generate", "/interpolate", "/score", "/upscale"]
# The operations that take an image as the body, and their form field.
FIELDS = {"/normalize": "file", "/reconstruct": "file", "/score": "files", "/classify": "files", "/upscale": "files"}
JSON_TYPE = {"Content-Type": "application/json"}
IMAGE_TYPES = ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG; charset=x"]
MEMBERS = {
    "/generate": texts.WRONG_FIELDS | texts.WRONG_LATENTS | texts.WRONG_CHOICES,
    "/interpolate": texts.WRONG_ENDS | texts.WRONG_CHOICES,
    "/score": texts.WRONG_FIELDS | texts.WRONG_CHOICES,
    "/upscale": texts.WRONG_FIELDS | texts.WRONG_CHOICES | texts.WRONG_FACTORS,
}
# Parts of the corpus that no answer may repeat.
NEVER_ECHOED = ("script", "jndi", "passwd", "__proto__", "xxxxxxxxxx", "99999999999999999999")


def post(client, path, content, media_type="image/png", **params):
    return client.post(path, content=content, headers={"Content-Type": media_type}, params=params)


def assert_refused(answer):
    problem_of(answer, 422, answer.json()["code"])
    assert answer.json()["code"] in {"invalid_request", "invalid_image", "capability_missing"}
    assert not [text for text in NEVER_ECHOED if text in answer.text]


@pytest.mark.parametrize("path", JSON_POSTS)
@pytest.mark.parametrize("body", (texts.NO_JSON | texts.NO_OBJECT).values(), ids=texts.NO_JSON | texts.NO_OBJECT)
def test_a_body_that_is_not_a_json_object_is_refused(client, path, body):
    assert_refused(client.post(path, content=body, headers=JSON_TYPE))


@pytest.mark.parametrize(
    ("path", "member"),
    [
        pytest.param(path, member, id=f"{path} {name}")
        for path, members in MEMBERS.items()
        for name, member in members.items()
    ],
)
def test_a_field_of_another_form_is_refused(client, path, member):
    assert_refused(client.post(path, content=f"{{{member}}}", headers=JSON_TYPE))


@pytest.mark.parametrize("query", texts.WRONG_QUERIES.values(), ids=texts.WRONG_QUERIES)
def test_a_query_of_another_form_is_refused(client, query):
    assert_refused(client.get(f"/interpolate?{query}"))


@pytest.mark.parametrize(
    "params", [{"seed": -1}, {"normalize": "yes"}, {"normalize": "1"}, {"scale": 17}, {"unknown": 1}, {"label": ""}]
)
def test_a_bad_option_of_an_upload_is_refused(client, digit, params):
    assert_refused(post(client, "/reconstruct", digit, **params))


@pytest.mark.parametrize("path", JSON_POSTS)
def test_options_in_the_query_beside_a_json_body_are_refused(client, path):
    problem_of(client.post(path, params={"n": 3}, json={}), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/normalize", "/reconstruct", "/interpolate", "/score", "/classify", "/upscale"])
def test_a_parameter_given_twice_is_refused(client, digit, path):
    problem_of(client.post(f"{path}?model=vae&model=gan", files={"file": digit}), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/models", "/models/vae"])
def test_a_query_of_a_path_without_parameters_is_refused(client, path):
    problem_of(client.get(path, params={"limit": 3}), 422, "invalid_request")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "image/gif", "image/*", ""])
def test_another_media_type_is_refused_naming_those_that_are_supported(client, path, media_type):
    detail = problem_of(post(client, path, b"{}", media_type), 415, "unsupported_media_type")["detail"]
    assert ("application/json" in detail) == (path in JSON_POSTS)
    assert ("image/png" in detail) == (path in FIELDS)


def test_a_media_type_of_another_operation_is_refused(client, digit):
    problem_of(client.post("/reconstruct", json={}), 415, "unsupported_media_type")
    problem_of(post(client, "/interpolate", digit), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", JSON_POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "application/json"), ("Content-Type", "application/json")],
        [("Content-Type", "application/json; charset=utf-8; charset=utf-16")],
        [("Content-Type", 'application/json; charset=utf-8;charset="utf-8"')],
        [("Content-Type", "application/json; charset=utf-16")],
        [("Content-Type", "application/json; charset=latin-1")],
        [("Content-Type", 'application/json; charset="utf-32"')],
        [("Content-Type", "application/json; charset=")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
        [("Content-Type", "application/json"), ("Content-Encoding", "identity"), ("Content-Encoding", "br")],
    ],
)
def test_json_that_is_ambiguous_compressed_or_not_utf_8_is_refused(client, path, headers):
    problem_of(client.post(path, content=b"{}", headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "us-ascii"])
def test_utf_8_can_be_declared(client, charset):
    assert post(client, "/generate", b"{}", f"application/json; charset={charset}").status_code == 200


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("media_type", IMAGE_TYPES)
def test_a_body_that_is_one_image_has_the_answer_of_a_form_whatever_format_it_declares(labelled, path, media_type):
    photo = (FIXTURES / "drawings" / "2-table.jpg").read_bytes()
    answer = post(labelled, path, photo, media_type)
    models = {
        "/normalize": "boots",
        "/reconstruct": "fitted",
        "/score": "gan",
        "/classify": "reader",
        "/upscale": "double",
    }
    assert_named(answer, models[path])
    assert answer.content == labelled.post(path, files={FIELDS[path]: photo}).content


@pytest.mark.parametrize("headers", [PNG, NPZ])
def test_options_of_a_body_that_is_one_image_are_those_of_a_form(client, digit, headers):
    params = {"seed": 3, "scale": 2, "normalize": False}
    plain = client.post("/reconstruct", content=digit, params=params, headers=headers | {"Content-Type": "image/png"})
    assert plain.headers["content-type"] == headers["Accept"]
    assert plain.content == client.post("/reconstruct", files={"file": digit}, params=params, headers=headers).content


@pytest.mark.parametrize("path", FIELDS)
def test_a_body_in_chunks_is_put_together(labelled, digit, path):
    chunks = (digit[start : start + 7] for start in range(0, len(digit), 7))
    answer = post(labelled, path, chunks)
    assert answer.status_code == 200, answer.text
    assert answer.content == post(labelled, path, digit).content


@pytest.mark.parametrize(
    ("path", "media_type", "limit"),
    [(path, "application/json", 2**14) for path in JSON_POSTS]
    + [(path, "image/png", 2**23) for path in FIELDS]
    + [("/interpolate", "multipart/form-data; boundary=B", 2**23)],
)
def test_a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not(labelled, path, media_type, limit):
    declared = post(labelled, path, b" " * (limit + 1), media_type)
    problem_of(declared, 413, "body_too_large")
    assert declared.headers["connection"] == "close"
    problem_of(post(labelled, path, (b" " * (limit // 16) for _ in range(17)), media_type), 413, "body_too_large")

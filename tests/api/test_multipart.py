"""Multipart bodies: what is read, and that a hostile one is refused."""

import pytest

from tests.api.reading import problem_of
from tests.conftest import FIXTURES
from tests.corpus import forms

DIGIT = (FIXTURES / "mnist" / "7.png").read_bytes()
FORMS = forms.forms(DIGIT)


def post(client, content, media_type=forms.MULTIPART, path="/reconstruct"):
    return client.post(path, content=content, headers={"Content-Type": media_type.encode("latin-1")})


@pytest.mark.parametrize("path", ["/reconstruct", "/interpolate", "/score"])
@pytest.mark.parametrize(("media_type", "body"), FORMS.values(), ids=FORMS)
def test_a_hostile_form_is_refused(client, path, media_type, body):
    answer = post(client, body, media_type, path)
    assert answer.status_code in {415, 422}, answer.text
    problem_of(answer, answer.status_code, answer.json()["code"])
    assert "xxxxxxxxxx" not in answer.text
    assert "passwd" not in answer.text


@pytest.fixture(scope="module")
def expected(client):
    """The answer to the image itself."""
    return client.post("/reconstruct", content=DIGIT, headers={"Content-Type": "image/png"}).content


@pytest.mark.parametrize(
    "media_type",
    [
        'multipart/form-data; x="; boundary=C"; boundary=B',
        'multipart/form-data; boundary="B"; charset=utf-8',
        "Multipart/Form-Data; Boundary=B;",
    ],
)
def test_parameters_of_the_media_type_are_read(client, expected, media_type):
    assert post(client, forms.file(DIGIT), media_type).content == expected


@pytest.mark.parametrize("encoding", [b"7bit", b"8bit", b"binary", b"BINARY "])
def test_an_encoding_that_changes_nothing_is_accepted(client, expected, encoding):
    head = b"content-transfer-encoding: " + encoding + b"\r\n" + forms.HEAD
    assert post(client, forms.file(DIGIT, head)).content == expected


@pytest.mark.parametrize("name", [b"x.png", b"", b"../../etc/passwd", b"\xff\xfe", b"a%0d%0ab"])
def test_the_file_name_has_no_effect(client, expected, name):
    assert post(client, forms.file(DIGIT, forms.HEAD.replace(b"x.png", name))).content == expected


def test_text_around_the_form_and_delimiters_within_a_file_are_no_boundaries(client, expected):
    assert post(client, forms.file(DIGIT) + b"epilogue").content == expected
    noise = DIGIT + b"\r\n-B--" + b"--B"  # behind the end of the image
    same = client.post("/reconstruct", content=noise, headers={"Content-Type": "image/png"})
    assert post(client, forms.file(noise)).content == same.content

"""An image as the body itself, beside multipart: the same answers, the same bounds."""

import base64
import io

import pytest
from PIL import Image
from pydantic import ValidationError

from app.settings import Settings
from tests.api.reading import assert_named, problem_of

FIELDS = {"/reconstruct": "file", "/score": "files"}
TYPES = ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG; charset=x"]


def post(client, path, content, kind="image/png", **options):
    return client.post(path, content=content, headers={"Content-Type": kind}, params=options)


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("kind", TYPES)
def test_the_answer_is_that_of_multipart_byte_for_byte(client, digit, path, kind):
    answer = post(client, path, digit, kind)
    assert_named(answer, "vae" if path == "/reconstruct" else "gan")
    assert answer.content == client.post(path, files={FIELDS[path]: digit}).content


@pytest.mark.parametrize("accept", ["image/png", "application/x-npz"])
def test_every_form_of_the_answer_is_that_of_multipart(client, digit, accept):
    headers = {"Accept": accept}
    options = {"seed": 3, "scale": 2, "normalize": False}
    plain = client.post("/reconstruct", content=digit, params=options, headers=headers | {"Content-Type": "image/png"})
    assert plain.headers["content-type"] == accept
    assert plain.content == client.post("/reconstruct", files={"file": digit}, params=options, headers=headers).content


def test_a_jpeg_is_read_whatever_image_it_is_said_to_be(client, digit):
    file = io.BytesIO()
    with Image.open(io.BytesIO(digit)) as opened:
        opened.save(file, "JPEG")
    expected = client.post("/reconstruct", files={"file": file.getvalue()}).content
    for kind in TYPES:
        assert post(client, "/reconstruct", file.getvalue(), kind).content == expected


@pytest.mark.parametrize("path", FIELDS)
def test_a_body_in_pieces_is_put_together(client, digit, path):
    pieces = (digit[start : start + 7] for start in range(0, len(digit), 7))
    assert post(client, path, pieces).content == post(client, path, digit).content


@pytest.mark.parametrize("path", FIELDS)
def test_a_body_over_the_limit_is_refused(client, path):
    problem_of(post(client, path, bytes(2**20 + 1)), 413, "body_too_large")
    pieces = (bytes(2**16) for _ in range(17))
    problem_of(post(client, path, pieces), 413, "body_too_large")


def test_settings_that_would_refuse_the_largest_image_are_refused():
    assert Settings(max_image_side=2048).max_upload_pixels == 2048**2
    with pytest.raises(ValidationError, match="DIGITS_MAX_UPLOAD_PIXELS is below the square of DIGITS_MAX_IMAGE_SIDE"):
        Settings(max_image_side=2049)


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(100)])
def test_a_body_that_is_no_image_is_refused(client, path, content):
    problem_of(post(client, path, content), 422, "invalid_image")


@pytest.mark.parametrize("path", FIELDS)
def test_a_truncated_image_is_refused(client, digit, path):
    problem_of(post(client, path, digit[:-20]), 422, "invalid_image")


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("kind", ["image/gif", "image/*", "text/plain", "", "application/octetstream"])
def test_another_type_is_refused_naming_those_that_are_read(client, digit, path, kind):
    body = problem_of(post(client, path, digit, kind), 415, "unsupported_media_type")
    for read in ("multipart/form-data", "image/png", "image/jpeg", "application/octet-stream"):
        assert read in body["detail"]


def form(digit, head=b""):
    disposition = b'Content-Disposition: form-data; name="file"; filename="a"\r\n'
    return b"--B\r\n" + disposition + head + b"\r\n" + digit + b"\r\n--B--\r\n"


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=B; boundary=C",
        "multipart/form-data; boundary=B; boundary=B",
        'multipart/form-data; boundary="B"; Boundary = C',
        "multipart/form-data; boundary=B; boundary*=us-ascii''C",
        "multipart/form-data; boundary=B; charset=utf-8; charset=utf-16",
        'multipart/form-data; boundary=B; x="\\"; y; z="; x=1',
        'multipart/form-data; x=\\"; boundary=B; boundary=C; y=\\"',
    ],
)
def test_a_parameter_given_twice_is_refused(client, digit, kind):
    body = problem_of(post(client, "/reconstruct", form(digit), kind), 415, "unsupported_media_type")
    assert body["detail"] == "Content-Type gives a parameter twice"


@pytest.mark.parametrize("kind", ["charset=utf-8; charset=utf-16", 'charset=utf-8;charset="utf-8"'])
def test_a_charset_given_twice_is_refused(client, kind):
    for path in ("/generate", "/score", "/interpolate"):
        problem_of(post(client, path, b"{}", f"application/json; {kind}"), 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ['x="; boundary=C"; boundary=B', 'boundary="B"; charset=utf-8', "boundary=B;"])
def test_parameters_given_once_are_read(client, digit, kind):
    answer = post(client, "/reconstruct", form(digit), f"multipart/form-data; {kind}")
    assert answer.content == post(client, "/reconstruct", digit).content


@pytest.mark.parametrize("encoding", [b"7bit", b"8bit", b"binary", b"BINARY "])
def test_a_file_that_is_sent_as_it_is_is_read(client, digit, encoding):
    content = form(digit, b"Content-Transfer-Encoding: " + encoding + b"\r\n")
    answer = post(client, "/reconstruct", content, "multipart/form-data; boundary=B")
    assert answer.content == post(client, "/reconstruct", digit).content


@pytest.mark.parametrize("encoding", [b"base64", b"Base64", b"quoted-printable", b"x-uuencode", b"binary, base64"])
def test_a_file_in_a_transfer_encoding_is_refused(client, digit, encoding):
    for content in (digit, base64.b64encode(digit)):
        body = form(content, b"content-transfer-encoding: " + encoding + b"\r\n")
        answer = post(client, "/reconstruct", body, "multipart/form-data; boundary=B")
        assert "Content-Transfer-Encoding" in problem_of(answer, 415, "unsupported_media_type")["detail"]


def test_one_image_is_not_the_two_ends_of_a_path(client, digit):
    problem_of(post(client, "/interpolate", digit), 415, "unsupported_media_type")


@pytest.mark.parametrize("options", [{"seed": -1}, {"scale": 99}, {"unknown": 1}])
def test_a_bad_option_is_refused(client, digit, options):
    problem_of(post(client, "/reconstruct", digit, **options), 422, "invalid_request")

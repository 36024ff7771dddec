"""The Accept header and the media type of the answer."""

import pytest

from app.api.negotiation import APNG, JSON, NPZ, PNG, negotiate
from app.errors import NotAcceptable

OFFERED = (JSON, PNG, APNG, NPZ)


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("IMAGE/PNG", PNG),
        ("image/*", PNG),
        ("application/*", JSON),
        ("text/html, image/png", PNG),
        ("image/png;q=0.5, application/x-npz", NPZ),
        ("*/*;q=0.1, image/apng;q=0.2", APNG),
        ("*/*, application/json;q=0", PNG),
        ("image/*, image/png;q=0.1", APNG),
        ("image/png; charset=utf-8", PNG),
        ("nonsense, image/png", PNG),
        ("application/json;q=2, image/png", PNG),
        # a browser
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", JSON),
    ],
)
def test_the_preferred_media_type_is_chosen(header, chosen):
    assert negotiate(header, OFFERED) == chosen


@pytest.mark.parametrize(
    "header",
    ["text/html", "image/png;q=0", "nonsense", "application/json;q=x", ",", ",".join(["text/html"] * 100 + [PNG])],
)
def test_a_header_that_accepts_no_media_type_is_refused_naming_those_that_are_offered(header):
    with pytest.raises(NotAcceptable) as refused:
        negotiate(header, OFFERED)
    assert all(media_type in refused.value.detail for media_type in OFFERED)


def test_several_accept_headers_are_one_list(client):
    headers = [("Accept", "text/html"), ("Accept", "image/png")]
    assert client.post("/generate", json={}, headers=headers).headers["content-type"] == "image/png"

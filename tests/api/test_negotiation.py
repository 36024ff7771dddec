"""Accept headers to forms."""

import pytest

from app.api.negotiation import APNG, JSON, NPZ, PNG, negotiate
from app.errors import NotAcceptable

FORMS = (JSON, PNG, APNG, NPZ)


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/*", PNG),
        ("application/*", JSON),
        ("application/x-npz", NPZ),
        ("image/apng", APNG),
        ("text/html, image/png", PNG),
        ("image/png;q=0.5, application/x-npz", NPZ),
        ("image/png;q=0.5, application/json;q=0.4", PNG),
        ("*/*;q=0.1, image/apng;q=0.2", APNG),
        ("*/*, application/json;q=0", PNG),
        ("image/*, image/png;q=0.1", APNG),
        ("image/png; charset=utf-8", PNG),
        ("nonsense, image/png", PNG),
        ("application/json;q=2, image/png", PNG),
        # what a browser's address bar sends
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", JSON),
    ],
)
def test_the_favourite_form_is_chosen(header, form):
    assert negotiate(header, FORMS) == form


@pytest.mark.parametrize(
    "header", ["text/html", "image/gif", "image/png;q=0", "nonsense", "application/json;q=x", ",", "video/*"]
)
def test_a_header_that_accepts_no_form_is_refused_naming_those_there_are(header):
    with pytest.raises(NotAcceptable, match="application/json, image/png, image/apng, application/x-npz"):
        negotiate(header, FORMS)


def test_a_header_of_ten_thousand_ranges_is_cut_short():
    with pytest.raises(NotAcceptable):
        negotiate(",".join(["text/html"] * 10_000 + ["image/png"]), FORMS)

"""Which hosts are served when some are named, and every one when none is."""

import pytest
from pydantic import ValidationError

from app.api.hosts import Hosts
from app.errors import Misdirected
from app.settings import Settings
from tests.api.reading import problem_of
from tests.conftest import serving

ALLOWED = ("digits.org", "*.digits.org", "127.0.0.1", "[::1]")


def scope(host: bytes) -> dict[str, object]:
    return {"path": "/models", "headers": [(b"accept", b"*/*"), (b"host", host)]}


@pytest.mark.parametrize(
    "host", [b"digits.org", b"DIGITS.org:8000", b"a.digits.org", b"a.b.digits.org:1", b"127.0.0.1:8000", b"[::1]:8000"]
)
def test_a_listed_host_is_served_on_any_port(host):
    Hosts(ALLOWED).check(scope(host))


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.org",
        b"digits.org.evil.org",
        b"evildigits.org",
        b"[::2]",
        b"::1",
        b".",
        b"digits.org.",
        b".digits.org",
    ],
)
def test_another_host_is_refused(host):
    with pytest.raises(Misdirected):
        Hosts(ALLOWED).check(scope(host))


def test_without_a_list_every_host_is_served():
    Hosts(()).check(scope(b"anything"))


def test_probes_may_name_any_host_and_everything_else_is_refused():
    with serving(allowed_hosts="127.0.0.1, digits.org") as client:
        assert client.get("/models").status_code == 200
        for path in ("/models", "/metrics", "/nowhere", "/openapi.json"):
            problem_of(client.get(path, headers={"Host": "evil.org"}), 421, "misdirected_request")
        for path in ("/livez", "/readyz"):
            assert client.get(path, headers={"Host": "10.0.0.1"}).status_code == 200


@pytest.mark.parametrize("value", ["a.org:80", "http://a.org", "*", "a.org,", "a b", "*.*.org"])
def test_a_list_that_holds_no_host_is_no_setting(value):
    with pytest.raises(ValidationError):
        Settings(allowed_hosts=value)


def test_the_environment_holds_names_with_commas_between_them(monkeypatch):
    monkeypatch.setenv("DIGITS_ALLOWED_HOSTS", "A.org, *.b.org")
    assert Settings().allowed_hosts == ("a.org", "*.b.org")

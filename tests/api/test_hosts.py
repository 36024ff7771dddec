"""The hosts that requests may name."""

import pytest
from pydantic import ValidationError

from app.settings import Settings
from tests.api.reading import problem_of
from tests.conftest import serving


@pytest.fixture(scope="module")
def service(tiny_models):
    with serving(models_dir=tiny_models, allowed_hosts="digits.org,*.digits.org,127.0.0.1,[::1]") as client:
        yield client


@pytest.mark.parametrize(
    "host", ["digits.org", "DIGITS.org:8000", "a.digits.org", "a.b.digits.org:1", "127.0.0.1:8000", "[::1]:8000"]
)
def test_a_listed_host_is_served_on_every_port(service, host):
    assert service.get("/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["", "b.org", "digits.org.b.org", "bdigits.org", "[::2]", ".", "digits.org.", ".digits.org"],
)
def test_another_host_is_refused(service, host):
    for path in ("/models", "/metrics", "/nowhere", "/openapi.json"):
        problem_of(service.get(path, headers={"Host": host}), 421, "misdirected_request")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_may_name_any_host(service, path):
    assert service.get(path, headers={"Host": "10.0.0.1"}).status_code == 200


def test_without_a_list_every_host_is_served(client):
    assert client.get("/models", headers={"Host": "anything"}).status_code == 200


@pytest.mark.parametrize("value", ["a.org:80", "http://a.org", "*", "a.org,", "a b", "*.*.org"])
def test_settings_refuse_what_is_not_a_host(value):
    with pytest.raises(ValidationError):
        Settings(allowed_hosts=value)


def test_the_environment_variable_is_a_list_with_commas(monkeypatch):
    monkeypatch.setenv("DIGITS_ALLOWED_HOSTS", "A.org, *.b.org")
    assert Settings().allowed_hosts == ("a.org", "*.b.org")

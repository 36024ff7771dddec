"""The documentation page: complete without the internet, and strict about scripts."""

import hashlib
import re

import pytest

from app.api import studio
from app.api.docs import FOLDER

PAGE = (FOLDER / "index.html").read_text()
ASSETS = re.findall(r'(?:src|href)="(docs/[^"]+)"', PAGE)


@pytest.mark.parametrize("asset", ASSETS)
def test_the_page_and_its_assets_are_served_without_a_key(guarded, asset):
    assert guarded.get("/docs").text == PAGE
    answer = guarded.get(asset)
    assert answer.status_code == 200
    assert answer.content == (FOLDER / asset.removeprefix("docs/").split("?")[0]).read_bytes()
    assert answer.headers["content-type"].split(";")[0] in {"text/css", "text/javascript"}


def test_vendored_assets_are_cached_for_as_long_as_their_version(client):
    version = re.search(r"swagger-ui-dist (\S+)", (FOLDER / "SHA256SUMS").read_text())
    assert version
    vendored = [asset for asset in ASSETS if "swagger-ui" in asset]
    assert len(vendored) == 2
    for asset in vendored:
        assert asset.endswith(f"?v={version[1]}")
        assert "immutable" in client.get(asset).headers["cache-control"]


@pytest.mark.parametrize(
    ("folder", "ours"),
    [(FOLDER, {"SHA256SUMS", "index.html", "initializer.js"}), (studio.FOLDER / "vendor", {"SHA256SUMS"})],
    ids=["documentation", "studio"],
)
def test_vendored_files_are_those_that_were_published(folder, ours):
    sums = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()[1:]]
    assert {name for _, name in sums} == {file.name for file in folder.iterdir()} - ours
    for digest, name in sums:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_scripts_and_styles_come_from_the_service_alone(client):
    policy = client.get("/docs").headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
    assert not [rule for rule in policy if "unsafe" in rule or "http" in rule]


@pytest.mark.parametrize("name", ["SHA256SUMS", "index.html", "..%2Fdocs.py", "%2Fetc%2Fpasswd"])
def test_no_other_file_is_served(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


def test_the_description_is_served_as_the_app_has_it(client, description):
    for _ in range(2):
        assert client.get("/openapi.json").json() == description


def test_the_description_names_the_key_scheme_where_there_is_a_key(guarded, client):
    assert guarded.get("/openapi.json").json()["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]

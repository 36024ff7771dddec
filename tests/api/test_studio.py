"""The studio's page and files as the service serves them, and its client module against the OpenAPI description."""

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser

import pytest

from app.api.negotiation import accepts_gzip
from app.api.studio import FOLDER, IMPORTS, studio
from tests.conftest import serving

FILES = sorted(studio().files)
MODULES = [name for name in FILES if name.endswith(".js")]
TYPES = {"css": "text/css", "js": "text/javascript", "mjs": "text/javascript", "svg": "image/svg+xml"}
LICENSES_AND_TEMPLATE = ["index.html", "vendor/LICENSE.preact", "vendor/SHA256SUMS", "../api/studio.py", "..%2Fmain.py"]
CALL = re.compile(r'export const (\w+) = \(([^;]*?)\) =>\s*send\("(\w+)", "([^"]+)"(.*?)\);\n', re.DOTALL)
PLAIN = {"Accept-Encoding": "identity"}


class Page(HTMLParser):
    """The addresses, inline scripts and handlers of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.inline, self.handlers, self._script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("src", "href") if name in given]
        self.handlers += [name for name in given if name.startswith("on") or name == "style"]
        self._script = tag in {"script", "style"} and "src" not in given

    def handle_data(self, data):
        if self._script:
            self.inline.append(data)
        self._script = False


@pytest.fixture(scope="module")
def without(tiny_models):
    with serving(models_dir=tiny_models, studio=False, api_key="correct-horse-battery") as client:
        yield client


def address(name):
    return f"/studio/{studio().digest}/{name}"


def test_the_page_needs_no_key_and_is_checked_for_changes(guarded):
    answer = guarded.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"


def test_the_page_loads_only_files_that_are_served(guarded):
    page = Page(guarded.get("/").text)
    loaded = {link for link in page.links if link != "docs"}
    assert all(guarded.get(f"/{link}").status_code == 200 for link in loaded)
    assert {link.removeprefix(address("").lstrip("/")) for link in loaded} == set(FILES)


def test_scripts_and_styles_come_from_the_service_and_nothing_is_inline_but_the_import_map(guarded):
    answer = guarded.get("/")
    page = Page(answer.text)
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    (import_map,) = page.inline
    assert not page.handlers
    allowed = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'self' 'sha256-{allowed}'"
    assert policy["style-src"] == policy["connect-src"] == "'self'"
    assert not [value for value in policy.values() if "unsafe" in value or "http" in value]


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_its_type_its_digest_and_needs_no_key(guarded, name):
    answer = guarded.get(address(name), headers=PLAIN)
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[name.rsplit(".", 1)[1]]
    assert "immutable" in answer.headers["cache-control"]
    assert "Accept-Encoding" in answer.headers["vary"].split(", ")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/", address("main.js"), "/openapi.json"])
def test_a_file_is_compressed_for_clients_that_accept_gzip(guarded, path):
    plain = guarded.get(path, headers=PLAIN)
    with guarded.stream("GET", path, headers={"Accept-Encoding": "br, gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join(answer.iter_raw())
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_used_only_where_it_is_accepted(accepted, expected):
    assert accepts_gzip(accepted) is expected


@pytest.mark.parametrize("name", LICENSES_AND_TEMPLATE)
def test_no_other_file_is_served(guarded, name):
    assert guarded.get(address(name)).status_code in {401, 404}  # 401: a path outside of the studio


def test_files_of_another_version_are_not_served(guarded):
    assert guarded.get("/studio/0123456789abcdef/main.js").status_code == 404


def test_the_setting_turns_the_page_off(without):
    answer = without.get("/")
    assert answer.is_redirect
    assert answer.headers["location"] == "docs"
    assert without.get(address("main.js")).status_code == 404


def test_all_files_fit_the_budget_compressed(guarded):
    page, files = studio().page, studio().files
    whole = len(page.compressed) + sum(len(file.compressed) for file in files.values())
    assert whole < 100_000  # with the description, the list of models and one answer it is the first view
    with guarded.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as answer:
        assert whole + len(b"".join(answer.iter_raw())) < 100_000


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_files_that_are_served(name):
    for imported in re.findall(r'from "([^"]+)"', (FOLDER / name).read_text()):
        if imported.startswith("."):
            path = (FOLDER / name).parent / imported
            assert path.resolve().relative_to(FOLDER).as_posix() in FILES
        else:
            assert imported in IMPORTS


def test_only_the_client_module_makes_requests():
    makers = [
        name
        for name in MODULES
        if re.search(r"\bfetch\(|XMLHttpRequest|EventSource|sendBeacon", (FOLDER / name).read_text())
    ]
    assert makers == ["client.js"]


def test_each_file_in_rooms_is_a_room_with_operations_of_the_service(description, guarded):
    ids = {each["operationId"] for methods in description["paths"].values() for each in methods.values()}
    (named,) = re.findall(r'<meta name="rooms" content="([^"]+)">', guarded.get("/").text)
    assert {f"rooms/{name}.js" for name in named.split()} == {name for name in MODULES if name.startswith("rooms/")}
    for name in named.split():
        text = (FOLDER / "rooms" / f"{name}.js").read_text()
        assert f'id: "{name}"' in text
        (operations,) = re.findall(r"operations: \[([^\]]*)\]", text)
        assert set(re.findall(r'"(\w+)"', operations)) <= ids


def test_each_call_of_the_client_module_is_an_operation_with_these_fields(description):
    calls = CALL.findall((FOLDER / "client.js").read_text())
    assert {name for name, *_ in calls} >= {
        "generate",
        "normalize",
        "reconstruct",
        "classify",
        "score",
        "listModels",
        "metrics",
    }
    schemas = description["components"]["schemas"]
    for name, _, method, path, options in calls:
        if path == "/openapi.json":  # describes the operations, and is none
            continue
        operation = description["paths"][path][method.lower()]
        assert operation["operationId"].replace("_", "") == name.lower()
        parameters = {each["name"] for each in operation.get("parameters", ())}
        assert fields(options, "names") == set(re.findall(r"{(\w+)}", path)) <= parameters
        assert fields(options, "query") <= parameters
        content = operation.get("requestBody", {}).get("content", {})
        assert ("image" in options) <= ("application/octet-stream" in content)
        if sent := fields(options, "body"):
            reference = content["application/json"]["schema"]["$ref"]
            assert sent <= set(schemas[reference.rsplit("/", 1)[1]]["properties"])


def fields(options, name):
    """The names in `name: { a, b }` of the options of a call."""
    found = re.search(name + r": {([^}]*)}", options)
    return {each.strip() for each in found[1].split(",") if each.strip()} if found else set()

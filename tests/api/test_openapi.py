"""The OpenAPI page says what the service does."""

import pytest

from app.main import create_app
from app.settings import Settings

OPERATIONS = {
    ("/generate", "post"): "generate",
    ("/reconstruct", "post"): "reconstruct",
    ("/interpolate", "get"): "interpolate",
    ("/interpolate", "post"): "interpolate_between",
    ("/score", "post"): "score",
    ("/models", "get"): "list_models",
    ("/models/{name}", "get"): "describe_model",
    ("/livez", "get"): "livez",
    ("/readyz", "get"): "readyz",
    ("/metrics", "get"): "metrics",
}
IMAGES = {"image/png", "image/jpeg", "application/octet-stream"}


@pytest.fixture(scope="module")
def page():
    return create_app(Settings()).openapi()


def test_operation_ids_are_stable(page):
    found = {
        (path, method): operation["operationId"]
        for path, methods in page["paths"].items()
        for method, operation in methods.items()
    }
    assert found == OPERATIONS


@pytest.mark.parametrize("path", ["/generate", "/reconstruct", "/interpolate", "/score"])
def test_a_body_is_described_with_its_types(page, path):
    content = page["paths"][path]["post"]["requestBody"]["content"]
    expected = {
        "/generate": {"application/json"},
        "/reconstruct": {"multipart/form-data", *IMAGES},
        "/interpolate": {"application/json", "multipart/form-data"},
        "/score": {"application/json", "multipart/form-data", *IMAGES},
    }
    assert set(content) == expected[path]
    for kind, body in content.items():
        assert body["schema"]["format"] == "binary" if kind in IMAGES else body["schema"]["properties"]


def resolved(page, part):
    """A part of the page with its references filled in."""
    if isinstance(part, dict):
        if "$ref" in part:
            return resolved(page, page["components"]["schemas"][part["$ref"].rsplit("/", 1)[1]])
        return {name: resolved(page, value) for name, value in part.items()}
    return [resolved(page, value) for value in part] if isinstance(part, list) else part


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_has_examples(page, path, method):
    operation = page["paths"][path][method]
    shown = resolved(page, operation["responses"]["200"])
    assert any(word in str(shown) for word in ("'example'", "'examples'", "'const'"))


def test_json_bodies_and_queries_have_examples(page):
    properties = page["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]
    assert properties["n"]["examples"]
    parameters = page["paths"]["/interpolate"]["get"]["parameters"]
    assert any("examples" in parameter["schema"] or "examples" in parameter for parameter in parameters)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_is_documented_as_a_problem(page, path, method):
    responses = page["paths"][path][method]["responses"]
    for status, response in responses.items():
        if int(status) >= 400:
            assert set(response["content"]) == {"application/problem+json"}, (path, status)


def test_an_operation_with_a_body_documents_its_refusals(page):
    for path in ("/generate", "/reconstruct", "/interpolate", "/score"):
        assert {"200", "404", "406", "413", "415", "422", "503", "504"} <= set(page["paths"][path]["post"]["responses"])


def test_the_forms_of_an_answer_are_documented(page):
    content = page["paths"]["/interpolate"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "image/png", "image/apng", "application/x-npz"}


@pytest.mark.parametrize(("method", "tagged"), [("get", True), ("post", False)])
def test_a_walk_describes_the_headers_that_name_its_ends(page, method, tagged):
    headers = page["paths"]["/interpolate"][method]["responses"]["200"]["headers"]
    assert {"X-From-Seed", "X-To-Seed"} <= set(headers)
    assert ("ETag" in headers) == tagged

"""The OpenAPI description is valid and complete."""

import pytest

from app.api.admission import PROBES
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
INFERENCE = list(OPERATIONS)[:5]
IMAGES = {"image/png", "image/jpeg", "application/octet-stream"}
MULTIPART = "multipart/form-data"
JSON = "application/json"
BODIES = {
    "/generate": {JSON},
    "/reconstruct": {MULTIPART, *IMAGES},
    "/interpolate": {JSON, MULTIPART},
    "/score": {JSON, MULTIPART, *IMAGES},
}
ANSWERS = {
    "/generate": {JSON, "image/png", "application/x-npz"},
    "/reconstruct": {JSON, "image/png", "application/x-npz"},
    "/interpolate": {JSON, "image/png", "image/apng", "application/x-npz"},
    "/score": {JSON, "application/x-npz"},
}


@pytest.fixture(scope="module")
def description():
    return create_app(Settings()).openapi()


def resolved(description, part):
    """A part of the description with its references replaced."""
    if isinstance(part, dict):
        if "$ref" in part:
            name = part["$ref"].removeprefix("#/components/schemas/")
            return resolved(description, description["components"]["schemas"][name])
        return {name: resolved(description, value) for name, value in part.items()}
    return [resolved(description, value) for value in part] if isinstance(part, list) else part


def test_every_operation_has_a_stable_id_a_summary_and_a_description(description):
    operations = {
        (path, method): operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    assert {key: operation["operationId"] for key, operation in operations.items()} == OPERATIONS
    assert all(operation["summary"] and operation["description"] for operation in operations.values())


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_reference_resolves_and_the_answer_has_examples(description, path, method):
    answer = resolved(description, description["paths"][path][method])["responses"]["200"]
    assert any(word in str(answer) for word in ("'example'", "'examples'", "'const'"))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_is_documented_as_a_problem(description, path, method):
    responses = description["paths"][path][method]["responses"]
    errors = {status: response for status, response in responses.items() if int(status) >= 400}
    expected = {"400", "408", "421", "431", "500", "503"} | ({"401"} if path not in PROBES else set())
    if (path, method) in INFERENCE:
        expected |= {"404", "406", "422", "504"} | ({"413", "415"} if method == "post" else set())
    assert expected <= set(errors)
    for response in errors.values():
        assert response["description"]
        assert set(response["content"]) == {"application/problem+json"}
    assert "Retry-After" in errors["503"]["headers"]
    assert "401" not in errors or "WWW-Authenticate" in errors["401"]["headers"]


@pytest.mark.parametrize(("path", "method"), INFERENCE)
def test_an_operation_documents_its_media_types_headers_and_timeout(description, path, method):
    operation = description["paths"][path][method]
    answer = operation["responses"]["200"]
    assert set(answer["content"]) == ANSWERS[path]
    assert {"X-Model", "X-Model-Digest", "X-Runtime", "X-Seed"} <= set(answer["headers"])
    assert ("X-From-Seed" in answer["headers"]) == (path == "/interpolate")
    assert ("ETag" in answer["headers"]) == ("304" in operation["responses"]) == (method == "get")
    assert [parameter["name"] for parameter in operation["parameters"]].count("X-Request-Timeout") == 1
    if method == "post":
        content = operation["requestBody"]["content"]
        assert set(content) == BODIES[path]
        assert all(content[media_type]["schema"]["format"] == "binary" for media_type in IMAGES & set(content))
        assert all(content[media_type]["schema"]["properties"] for media_type in {JSON, MULTIPART} & set(content))


def test_json_bodies_and_queries_have_examples(description):
    body = description["paths"]["/generate"]["post"]["requestBody"]["content"][JSON]["schema"]
    assert body["properties"]["n"]["examples"]
    parameters = description["paths"]["/interpolate"]["get"]["parameters"]
    assert any("examples" in parameter["schema"] for parameter in parameters)

"""The OpenAPI description is valid and complete."""

import pytest

from app.api.admission import PROBES
from app.api.fields import MAX_FILES
from app.main import create_app
from app.settings import Settings

OPERATIONS = {
    ("/generate", "post"): "generate",
    ("/normalize", "post"): "normalize",
    ("/reconstruct", "post"): "reconstruct",
    ("/interpolate", "get"): "interpolate",
    ("/interpolate", "post"): "interpolate_between",
    ("/score", "post"): "score",
    ("/classify", "post"): "classify",
    ("/upscale", "post"): "upscale",
    ("/models", "get"): "list_models",
    ("/models/{name}", "get"): "describe_model",
    ("/models/{name}/history", "get"): "model_history",
    ("/models/{name}/pictures/{picture}", "get"): "model_picture",
    ("/v2", "get"): "v2_server",
    ("/v2/models/{name}", "get"): "v2_model",
    ("/v2/models/{name}/versions/{version}", "get"): "v2_model_version",
    ("/v2/models/{name}/ready", "get"): "v2_model_ready",
    ("/v2/models/{name}/versions/{version}/ready", "get"): "v2_model_version_ready",
    ("/v2/models/{name}/infer", "post"): "v2_infer",
    ("/v2/models/{name}/versions/{version}/infer", "post"): "v2_infer_version",
    ("/v2/health/live", "get"): "v2_live",
    ("/v2/health/ready", "get"): "v2_ready",
    ("/livez", "get"): "livez",
    ("/readyz", "get"): "readyz",
    ("/metrics", "get"): "metrics",
}
INFER = [(path, method) for path, method in OPERATIONS if path.endswith("/infer")]
INFERENCE = list(OPERATIONS)[:8] + INFER
BINARY = "application/octet-stream"
MULTIPART = "multipart/form-data"
JSON = "application/json"
BODIES = {
    "/generate": {JSON},
    "/normalize": {MULTIPART, BINARY},
    "/reconstruct": {MULTIPART, BINARY},
    "/interpolate": {JSON, MULTIPART},
    "/score": {JSON, MULTIPART, BINARY},
    "/classify": {MULTIPART, BINARY},
    "/upscale": {JSON, MULTIPART, BINARY},
    **{path: {JSON, BINARY} for path, _ in INFER},
}
ANSWERS = {
    "/generate": {
        JSON,
        "image/png",
        "application/x-npz",
        "application/x-ndjson",
        "text/event-stream",
        "application/zip",
        "application/x-idx",
    },
    "/normalize": {JSON, "image/png"},
    "/reconstruct": {JSON, "image/png", "application/x-npz"},
    "/interpolate": {JSON, "image/png", "image/apng", "application/x-npz"},
    "/score": {JSON, "application/x-npz"},
    "/classify": {JSON, "application/x-npz"},
    "/upscale": {JSON, "image/png", "application/x-npz"},
    **{path: {JSON, BINARY} for path, _ in INFER},
}


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
def test_every_error_is_documented_in_its_form(description, path, method):
    responses = description["paths"][path][method]["responses"]
    errors = {status: response for status, response in responses.items() if int(status) >= 400}
    expected = {"400", "408", "421", "431", "500", "503"} | ({"401"} if path not in PROBES else set())
    if (path, method) in INFERENCE:
        expected |= {"404", "406", "422", "504"} | ({"413", "415"} if method == "post" else set())
    assert expected <= set(errors)
    for response in errors.values():
        assert response["description"]
        assert set(response["content"]) == {JSON if path.startswith("/v2") else "application/problem+json"}
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
        assert BINARY not in content or content[BINARY]["schema"]["format"] == "binary"


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_parameter_has_a_description_and_an_example(description, path, method):
    for parameter in description["paths"][path][method].get("parameters", []):
        assert parameter["description"], parameter
        assert parameter["schema"]["examples"], parameter


def bodies(description):
    """The schema of each body by path and media type."""
    return {
        (path, media_type): content["schema"]
        for path, methods in description["paths"].items()
        for operation in methods.values()
        for media_type, content in operation.get("requestBody", {"content": {}})["content"].items()
    }


def test_every_body_but_a_file_is_a_component_whose_fields_have_descriptions_and_examples(description):
    for (_, media_type), schema in bodies(description).items():
        if media_type != BINARY:
            assert set(schema) == {"$ref"}
            for field in resolved(description, schema)["properties"].values():
                assert field["description"], field
                assert media_type == MULTIPART or field["examples"], field


def references(description, part):
    """The names of the components in a part of the description, also in one another."""
    if isinstance(part, list):
        return {name for each in part for name in references(description, each)}
    if not isinstance(part, dict):
        return set()
    found = {name for value in part.values() for name in references(description, value)}
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        found |= {name} | references(description, description["components"]["schemas"][name])
    return found


def test_only_requests_refuse_unknown_fields(description):
    schemas = [schema for (_, type_), schema in bodies(description).items() if type_ == JSON]
    components = description["components"]["schemas"]
    requests = {name for name in references(description, schemas) if components[name].get("type") == "object"}
    closed = {name for name, schema in components.items() if schema.get("additionalProperties") is False}
    assert closed == requests


def test_every_problem_is_one_component(description):
    schemas = [
        content["schema"]
        for methods in description["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for media_type, content in response.get("content", {}).items()
        if media_type == "application/problem+json"
    ]
    assert all(schema == {"$ref": "#/components/schemas/Problem"} for schema in schemas)
    assert resolved(description, schemas[0])["properties"]["errors"]["items"]["properties"]["message"]


def test_maxima_are_those_of_the_settings():
    description = create_app(Settings(max_images=20, max_stream_images=30, max_upload_bytes=5000)).openapi()
    schemas = {key: resolved(description, schema) for key, schema in bodies(description).items()}
    counts = [schemas["/score", JSON]["properties"]["n"]]
    steps = [schemas["/interpolate", JSON]["properties"]["steps"]]
    steps += [
        parameter["schema"]
        for operation in description["paths"]["/interpolate"].values()
        for parameter in operation["parameters"]
        if parameter["name"] == "steps"
    ]
    assert len(steps) == 3
    assert all(schema["maximum"] == 20 for schema in counts + steps)
    assert schemas["/generate", JSON]["properties"]["n"]["anyOf"][0]["maximum"] == 30
    files = schemas["/score", MULTIPART]["properties"]["files"]
    assert [files["maxItems"], schemas["/generate", JSON]["properties"]["latents"]["anyOf"][0]["maxItems"]] == [20, 20]
    assert [files["items"]["maxLength"], schemas["/reconstruct", BINARY]["maxLength"]] == [5000, 5000]


def test_a_bound_of_an_operation_below_the_setting_is_kept():
    description = create_app(Settings(max_images=4096)).openapi()
    form = resolved(description, bodies(description)["/score", MULTIPART])
    assert form["properties"]["files"]["maxItems"] == MAX_FILES

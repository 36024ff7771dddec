"""Generated requests: schemathesis from the OpenAPI page, hypothesis from what breaks services.

The same examples every time, and few enough for every run; `make fuzz` makes more, and others.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.main import create_app
from app.settings import Settings
from tests.api.reading import errors
from tests.conftest import TEST_IMAGES, serving
from tests.contract.wire import address_of, connection, send, until_closed

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
FEW = settings(max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=50)
DIGIT = TEST_IMAGES[7]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.integers(0, 300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(
    ["model", "n", "seed", "first", "latents", "scale", "steps", "path", "from_seed", "to_latent", "factor"]
)
OBJECTS = st.dictionaries(NAMES | st.text(), VALUES, max_size=6).map(json.dumps).map(str.encode)
INFER = "/v2/models/cgan.generate/infer"
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["latent", "label", "image"]),
        "datatype": st.sampled_from(["FP32", "INT64", "UINT8", "BYTES"]),
        "shape": st.lists(st.integers(-1, 200), max_size=4),
    },
    optional={"data": VALUES | st.lists(st.integers(0, 9), max_size=4), "parameters": VALUES},
)
PARAMETERS = st.dictionaries(st.sampled_from(["seed", "first", "n", "prior", "binary_data_output"]), VALUES, max_size=3)
REQUESTS = (
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, max_size=3)},
        optional={"parameters": PARAMETERS, "outputs": VALUES, "id": VALUES},
    )
    .map(json.dumps)
    .map(str.encode)
)
HEADERS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
EDITS = st.lists(st.tuples(st.integers(0, len(DIGIT) - 1), st.integers(0, 255)), max_size=8)


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    with serving(models="cgan,lenet,srgan,vae", max_images=16) as client:
        yield client
        assert errors(client, "internal_error") == 0


PAGE = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = [found.ok() for found in PAGE.get_all_operations() if isinstance(found, Ok)]


@pytest.mark.parametrize("operation", [pytest.param(one, id=one.label) for one in OPERATIONS])
def test_answers_are_as_the_openapi_page_documents_them(service, operation):
    takes_input = operation.body or operation.query or operation.path_parameters
    for mode in schemathesis.GenerationMode if takes_input else [schemathesis.GenerationMode.POSITIVE]:

        @FEW
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            answer = case.call(base_url=str(service.base_url))
            # A generated X-Request-Timeout may be too short.
            late = answer.status_code == 504 and answer.json()["code"] == "deadline_exceeded"
            case.validate_response(answer, checks=CHECKS[1:] if late else CHECKS)

        ask()


def assert_answered(answer: httpx.Response) -> None:
    assert answer.status_code in {200, 404, 406, 413, 415, 422}, answer.text
    if answer.status_code != 200:
        form = "application/json" if answer.request.url.path.startswith("/v2") else "application/problem+json"
        assert answer.headers["content-type"] == form


@pytest.mark.parametrize("path", ["/generate", "/interpolate", "/score", "/upscale", INFER])
@MANY
@given(body=OBJECTS | REQUESTS | st.binary(max_size=300))
def test_any_body_is_answered(service, path, body):
    assert_answered(service.post(path, content=body, headers={"Content-Type": "application/json"}))


@MANY
@given(head=REQUESTS, behind=st.binary(max_size=100), error=st.integers(-3, 3))
def test_any_binary_tensors_are_answered(service, head, behind, error):
    headers = {"Inference-Header-Content-Length": str(len(head) + error), "Content-Type": "application/octet-stream"}
    assert_answered(service.post(INFER, content=head + behind, headers=headers))


@MANY
@given(query=st.dictionaries(NAMES | st.text(), st.text() | st.integers().map(str), max_size=5))
def test_any_query_is_answered(service, query):
    try:
        answer = service.get("/interpolate", params=query)
    except UnicodeEncodeError:  # httpx cannot send a lone surrogate; the corpus has one
        return
    assert_answered(answer)


@MANY
@given(edits=EDITS, cut=st.integers(0, 40))
def test_any_damaged_file_is_answered(service, edits, cut):
    content = bytearray(DIGIT)
    for position, value in edits:
        content[position] = value
    body = bytes(content[: len(content) - cut])
    assert_answered(service.post("/reconstruct", content=body, headers={"Content-Type": "image/png"}))


@pytest.mark.parametrize("name", ["Accept", "Content-Type", "Content-Encoding", "Authorization", "If-None-Match"])
@MANY
@given(value=HEADERS)
def test_any_header_is_answered(service, name, value):
    headers = {"Content-Type": "application/json", name: value.strip().encode("latin-1")}
    assert_answered(service.post("/generate", content=b'{"n":1}', headers=headers))


@MANY
@given(
    content=st.binary(min_size=1, max_size=200)
    | st.binary(max_size=100).map(b"POST /score HTTP/1.1\r\nHost: x\r\n".__add__)
)
def test_any_bytes_are_answered(service, content):
    # Bytes that are not yet a request, such as empty lines, are answered with the request behind them.
    with connection(address_of(service)) as caller:
        send(caller, content + b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = {status for status, _ in until_closed(caller)}
    assert found
    assert found <= {200, 400, 404, 405, 411, 415, 422, 431}

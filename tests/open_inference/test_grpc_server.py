"""The Open Inference Protocol over gRPC."""

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from app.open_inference.grpc_messages import MAX_PARAMETERS
from app.open_inference.grpc_server import MAX_MESSAGE_BYTES
from tests.conftest import NeverLoaded
from tests.open_inference.conftest import serving_grpc

KEY = "correct-horse-battery"
LABELS = np.arange(10, dtype=np.int64)
SEED = {"seed": {"int64_param": 8}}
RAW = {"inputs": [{"name": "label", "datatype": "INT64", "shape": [10]}], "raw_input_contents": [LABELS.tobytes()]}


def array(answer, name):
    """An output."""
    (index,) = [index for index, output in enumerate(answer.outputs) if output.name == name]
    output = answer.outputs[index]
    dtype = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}[output.datatype]
    return np.frombuffer(answer.raw_output_contents[index], dtype).reshape(output.shape)


def refused(caller, rpc="ModelInfer", **fields):
    with pytest.raises(grpc.RpcError) as error:
        caller(rpc, **fields)
    return error.value


def test_health_and_metadata_are_those_of_http(called, client):
    assert called("ServerLive").live
    assert called("ServerReady").ready
    assert called("ModelReady", name="cgan.generate").ready
    assert list(called("ServerMetadata").extensions) == ["binary_tensor_data"]
    metadata, same = called("ModelMetadata", name="cgan.generate"), client.get("/v2/models/cgan.generate").json()
    assert (metadata.name, list(metadata.versions)) == (same["name"], same["versions"])
    for given, expected in ((metadata.inputs, same["inputs"]), (metadata.outputs, same["outputs"])):
        assert [{"name": each.name, "datatype": each.datatype, "shape": [*each.shape]} for each in given] == expected


def test_the_tensors_are_those_of_http(called, client):
    answer = called("ModelInfer", model_name="cgan.generate", id="42", parameters=SEED, **RAW)
    label = {"name": "label", "datatype": "INT64", "shape": [10], "data": LABELS.tolist()}
    same = client.post("/v2/models/cgan.generate/infer", json={"parameters": {"seed": 8}, "inputs": [label]}).json()
    assert array(answer, "image").ravel().tolist() == same["outputs"][0]["data"]
    assert (answer.id, answer.model_name, answer.model_version) == ("42", "cgan.generate", same["model_version"])
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.parameters.items()
    }
    assert parameters == same["parameters"]


def test_contents_may_be_typed(called):
    images = np.tile(np.arange(256, dtype=np.uint8), 4)[:784]
    label = {"name": "label", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [3]}}
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "contents": {"uint_contents": images.tolist()}}
    floats = (images / np.float32(255)).astype(np.float32)
    same = image | {"datatype": "FP32", "contents": {"fp32_contents": floats.tolist()}}
    logits = [
        array(called("ModelInfer", model_name="cgan.discriminate", inputs=[each, label]), "logit")
        for each in (image, same)
    ]
    assert logits[0] == logits[1]


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"model_name": "nobody"}, StatusCode.NOT_FOUND, "MODEL.CAPABILITY"),
        ({"model_name": "cgan.generate", "model_version": "1"}, StatusCode.NOT_FOUND, "version"),
        ({"model_name": "cgan.generate"}, StatusCode.INVALID_ARGUMENT, "seed"),
        ({"model_name": "cgan.generate", "parameters": SEED, **RAW, "raw_input_contents": [b"", b""]}, None, "raw_"),
        ({"model_name": "cgan.generate", "parameters": SEED, **RAW, "raw_input_contents": [b"123"]}, None, "80 bytes"),
        ({"model_name": "cgan.generate", "parameters": SEED, "inputs": RAW["inputs"]}, None, "10 numbers"),
        ({"model_name": "cgan.generate", "parameters": {"seed": {"string_param": "8"}}}, None, "seed"),
        ({"model_name": "cgan.generate", "parameters": {"seed": {}}}, None, "latent"),
        ({"model_name": "cgan.generate", "parameters": {f"x{i}": {} for i in range(99)}}, None, str(MAX_PARAMETERS)),
        ({"model_name": "cgan.generate", "inputs": [{}] * 1000}, None, "inputs"),
        ({"model_name": "cgan.generate", "outputs": [{"name": "x"}] * 1000}, None, "outputs"),
    ],
)
def test_a_wrong_request_has_a_status_and_a_reason(called, fields, code, word):
    error = refused(called, **fields)
    assert error.code() == (code or StatusCode.INVALID_ARGUMENT)
    assert word in error.details()


def test_malformed_and_large_messages_and_unknown_calls_are_refused(called):
    for content, code in (
        (b"\xff", StatusCode.INVALID_ARGUMENT),
        (bytes(MAX_MESSAGE_BYTES + 1), StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as error:
            called.rpc("ModelInfer")(content, timeout=60)
        assert error.value.code() == code
    with pytest.raises(grpc.RpcError) as error:
        called.rpc("RepositoryIndex")(b"", timeout=60)
    assert error.value.code() == StatusCode.UNIMPLEMENTED


def test_a_call_has_the_id_of_its_caller_or_one_of_its_own(called):
    for metadata, expected in (((("x-request-id", "mine"),), "mine"), ((), None)):
        error = refused(called, metadata=metadata, model_name="nobody")
        (found,) = [value for key, value in error.trailing_metadata() if key == "x-request-id"]
        assert found == expected or (expected is None and len(found) == 32)


def test_all_but_health_needs_the_key(tiny_models):
    with serving_grpc(models_dir=tiny_models, api_key=KEY) as caller:
        assert caller("ServerReady").ready
        assert caller("ServerLive").live
        for metadata in ((), (("authorization", f"Bearer {KEY}x"),)):
            assert refused(caller, "ServerMetadata", metadata=metadata).code() == StatusCode.UNAUTHENTICATED
        assert caller("ServerMetadata", metadata=(("authorization", f"Bearer {KEY}"),)).name == "digits"


def test_calls_are_admitted_and_cancelled_as_requests(tiny_models, gate):
    with serving_grpc(models_dir=tiny_models, max_requests=1) as caller:
        request = {"model_name": "plain.generate", "parameters": SEED}
        infer = caller.rpc("ModelInfer")
        message = caller.message("ModelInfer", **request)
        first = infer.future(message, timeout=60)
        assert gate.reached.acquire(timeout=60)
        error = refused(caller, **request)
        assert error.code() == StatusCode.UNAVAILABLE
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        assert caller("ServerReady").ready, "health needs no admission"
        gate.opened.set()
        assert len(first.result().raw_output_contents) == 1
        assert caller("ServerMetadata").name == "digits", "the call no longer counts"


def test_a_deadline_ends_a_call_whose_rows_leave_the_queue(tiny_models, gate):
    with serving_grpc(models_dir=tiny_models, request_timeout_s=0.05) as caller:
        error = refused(caller, model_name="plain.generate", parameters=SEED)
        gate.opened.set()
        assert error.code() == StatusCode.DEADLINE_EXCEEDED


def test_while_loading_and_draining_the_server_is_live_and_not_ready(tiny_models):
    with serving_grpc(NeverLoaded(), models_dir=tiny_models) as caller:
        assert caller("ServerLive").live
        assert not caller("ServerReady").ready
        assert not caller("ModelReady", name="plain.generate").ready
        assert refused(caller, model_name="plain.generate").code() == StatusCode.UNAVAILABLE
    with serving_grpc(models_dir=tiny_models) as caller:
        caller.readiness.drain()
        assert not caller("ServerReady").ready
        assert refused(caller, model_name="plain.generate").code() == StatusCode.UNAVAILABLE

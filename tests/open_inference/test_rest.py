"""The Open Inference Protocol over HTTP."""

import json
import math

import numpy as np
import pytest

from app.open_inference.http_bodies import HEADER_LENGTH, MAX_JSON_BYTES
from tests.api.reading import NPZ, metric, npz_of
from tests.conftest import serving
from tests.corpus import texts
from tests.tiny_models import DIGITS, LATENT_DIM

DTYPES = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}
DATATYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
BINARY = {"binary_data_output": True}


def tensor(name, array):
    """An input with its numbers."""
    array = np.asarray(array)
    return {"name": name, "datatype": DATATYPES[array.dtype], "shape": array.shape, "data": array.ravel().tolist()}


def post(client, model, *inputs, headers=None, **fields):
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **fields}, headers=headers)


def post_binary(client, model, header, *arrays):
    """A request with binary tensors behind the JSON."""
    head = json.dumps(header).encode()
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return client.post(f"/v2/models/{model}/infer", content=b"".join([head, *arrays]), headers=headers)


def outputs_of(answer):
    """The outputs of an answer as arrays by name."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER_LENGTH, len(answer.content)))
    behind, arrays = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            array = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            array, behind = np.frombuffer(behind[:size], dtype), behind[size:]
        arrays[output["name"]] = array.reshape(output["shape"])
    assert behind == b""
    return arrays


def error_of(answer, status=422):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json().keys() == {"error"}
    return answer.json()["error"]


def test_the_server_names_its_extensions(client):
    assert client.get("/v2").json() == {"name": "digits", "version": "0.1.0", "extensions": ["binary_tensor_data"]}


def test_every_capability_of_every_model_takes_and_gives_the_tensors_of_its_metadata(labelled):
    for model in labelled.get("/models").json()["models"]:
        for capability in model["capabilities"]:
            name = f"{model['name']}.{capability}"
            metadata = labelled.get(f"/v2/models/{name}").json()
            assert (metadata["name"], metadata["versions"]) == (name, [model["digest"]])
            assert labelled.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
            inputs = [
                tensor(each["name"], np.zeros((3, *each["shape"][1:]), DTYPES[each["datatype"]]))
                for each in metadata["inputs"]
            ]
            answer = post(labelled, name, *inputs)
            described = [(each["name"], each["datatype"], each["shape"][1:]) for each in metadata["outputs"]]
            given = answer.json()["outputs"]
            assert [(each["name"], each["datatype"], each["shape"][1:]) for each in given] == described, name
            assert all(each["shape"][0] == 3 for each in given)


@pytest.mark.parametrize("parameters", [{}, BINARY])
@pytest.mark.parametrize("model", ["cgan", "fitted", "gan"])
def test_the_images_of_a_seed_are_those_of_generate(labelled, model, parameters):
    answer = post(labelled, f"{model}.generate", parameters={"seed": 9, "first": 5, "n": 12} | parameters)
    given = outputs_of(answer)
    same = npz_of(labelled.post("/generate", json={"model": model, "n": 12, "seed": 9, "first": 5}, headers=NPZ))
    assert np.array_equal(given["image"], same["images"])
    assert np.array_equal(given["label"], same["labels"]) if "labels" in same else "label" not in given
    assert answer.headers["x-seed"] == "9"


@pytest.mark.parametrize("model", ["cgan", "fitted"])
def test_each_row_of_a_seed_has_the_class_of_its_row_of_label(labelled, model):
    labels = np.array([3, 1, 4, 1, 5])
    given = outputs_of(post(labelled, f"{model}.generate", tensor("label", labels), parameters={"seed": 2, "first": 7}))
    assert np.array_equal(given["label"], labels)
    for row, label in enumerate(labels):
        body = {"model": model, "seed": 2, "first": 7 + row, "label": DIGITS[label]}
        assert np.array_equal(
            npz_of(labelled.post("/generate", json=body, headers=NPZ))["images"][0], given["image"][row]
        )


def test_latents_without_labels_give_images_without(labelled):
    given = outputs_of(post(labelled, "fitted.generate", tensor("latent", np.zeros((2, LATENT_DIM), np.float32))))
    assert given["label"].tolist() == [-1, -1]


def test_the_images_of_one_model_are_the_input_of_another_in_either_datatype(client):
    labels = tensor("label", np.arange(10))
    images = outputs_of(post(client, "cgan.generate", labels, parameters={"seed": 1}))["image"]
    floats = (images / np.float32(255)).astype(np.float32)
    logits = [outputs_of(post(client, "cgan.discriminate", tensor("image", each), labels)) for each in (images, floats)]
    scores = client.post("/score", json={"model": "cgan", "n": 10, "seed": 1, "label": "balanced"}).json()["scores"]
    for each in logits:
        assert each["logit"].tolist() == [score["logit"] for score in scores]


def test_posteriors_have_named_parts(client):
    image = np.zeros((1, 28, 28), np.uint8)
    given = outputs_of(post(client, "vae.encode", tensor("image", image)))
    assert given.keys() == {"mean", "log_variance"}


def test_an_answer_names_its_origin_and_the_request(client):
    answer = post(client, "cgan.generate", parameters={"seed": 4}, id="42", model_name="cgan.generate")
    body = answer.json()
    assert (body["id"], body["model_name"], body["parameters"]["seed"]) == ("42", "cgan.generate", 4)
    assert body["model_version"] == answer.headers["x-model-digest"]
    assert body["parameters"]["runtime"] == answer.headers["x-runtime"]
    assert "id" not in post(client, "cgan.generate", parameters={"seed": 4}).json()


def test_the_digest_is_the_only_version(client):
    (version,) = client.get("/v2/models/gan.generate").json()["versions"]
    path = "/v2/models/gan.generate/versions"
    assert client.get(f"{path}/{version}").json() == client.get("/v2/models/gan.generate").json()
    assert client.get(f"{path}/{version}/ready").status_code == 200
    assert client.post(f"{path}/{version}/infer", json={"parameters": {"seed": 1}}).status_code == 200
    for other in (f"{path}/1", f"{path}/1/ready"):
        assert version in error_of(client.get(other), 404)


@pytest.mark.parametrize("name", ["gan", "gan.classify", "nobody.generate", "generate", "gan.", "..generate"])
def test_another_model_is_not_found(client, name):
    error_of(client.get(f"/v2/models/{name}/ready"), 404)
    error_of(client.post(f"/v2/models/{name}/infer", json={}), 404)


def test_outputs_are_answered_as_and_in_the_order_that_they_are_requested(client):
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "image"}]
    answer = post(client, "cgan.generate", parameters={"seed": 1}, outputs=wanted)
    length = int(answer.headers[HEADER_LENGTH])
    first, second = json.loads(answer.content[:length])["outputs"]
    assert (first["name"], first["parameters"], second["name"]) == ("label", {"binary_data_size": 8}, "image")
    assert len(second["data"]) == 784
    assert len(answer.content) == length + 8
    alone = post(client, "cgan.generate", parameters={"seed": 1} | BINARY, outputs=[{"name": "label"}])
    assert outputs_of(alone).keys() == {"label"}


def test_inputs_may_be_binary(client):
    images = np.stack([np.arange(784, dtype=np.uint8).reshape(28, 28)] * 2)
    labels = np.array([1, 2])

    def described(each):
        array = {"image": images, "label": labels}[each]
        fields = tensor(each, array) | {"parameters": {"binary_data_size": array.nbytes}}
        return {name: value for name, value in fields.items() if name != "data"}

    expected = outputs_of(post(client, "cgan.discriminate", tensor("image", images), tensor("label", labels)))
    both = {"inputs": [described("label"), described("image")]}
    answer = post_binary(client, "cgan.discriminate", both, labels.tobytes(), images.tobytes())
    assert np.array_equal(outputs_of(answer)["logit"], expected["logit"])
    mixed = {"inputs": [tensor("label", labels), described("image")], "parameters": BINARY}
    answer = post_binary(client, "cgan.discriminate", mixed, images.tobytes())
    assert np.array_equal(outputs_of(answer)["logit"], expected["logit"])
    for wrong in (images.tobytes()[:-1], images.tobytes() + b"\0", b""):
        error_of(post_binary(client, "cgan.discriminate", mixed, wrong))


LABEL = tensor("label", np.arange(2))
LATENT = tensor("latent", np.zeros((2, 100), np.float32))
IMAGE = tensor("image", np.zeros((2, 28, 28), np.uint8))
SEED = {"seed": 1}


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("cgan.generate", {}, ["latent", "seed"]),
        ("cgan.generate", {"inputs": [LATENT]}, ["label"]),
        ("cgan.generate", {"inputs": [LATENT, LABEL], "parameters": SEED}, ["seed", "latent"]),
        ("cgan.generate", {"inputs": [LATENT, tensor("label", np.arange(3))]}, ["rows"]),
        ("cgan.generate", {"inputs": [LATENT, LABEL, LABEL]}, ["twice"]),
        ("cgan.generate", {"inputs": [LABEL, IMAGE], "parameters": SEED}, ["label"]),
        ("cgan.generate", {"inputs": [LABEL | {"datatype": "INT32"}], "parameters": SEED}, ["INT64"]),
        ("cgan.generate", {"inputs": [LABEL | {"shape": [2, 1]}], "parameters": SEED}, ["shape"]),
        ("cgan.generate", {"inputs": [LABEL | {"shape": [3]}], "parameters": SEED}, ["3 numbers"]),
        ("cgan.generate", {"inputs": [LABEL | {"shape": [0], "data": []}], "parameters": SEED}, ["at least one"]),
        ("cgan.generate", {"inputs": [LABEL | {"shape": []}], "parameters": SEED}, ["shape"]),
        ("cgan.generate", {"inputs": [LABEL | {"data": None}], "parameters": SEED}, ["no data"]),
        ("cgan.generate", {"inputs": [LABEL | {"data": [1, 10]}], "parameters": SEED}, ["0 to 9"]),
        ("cgan.generate", {"inputs": [LABEL], "parameters": SEED | {"n": 3}}, ["n must"]),
        ("cgan.generate", {"inputs": [LABEL | {"parameters": {"binary_data_size": 16}}], "parameters": SEED}, ["both"]),
        ("cgan.generate", {"parameters": SEED | {"n": 257}}, ["256", "first"]),
        ("cgan.generate", {"parameters": SEED | {"first": 2**53 - 1, "n": 2}}, ["2^53"]),
        ("cgan.generate", {"parameters": SEED | {"temperature": 0.5}}, ["truncation"]),
        ("cgan.generate", {"parameters": SEED | {"sequence_id": 1}}, ["unknown", "temperature"]),
        ("cgan.generate", {"parameters": {"seed": True}}, ["parameters.seed"]),
        ("cgan.generate", {"parameters": SEED, "outputs": [{"name": "logit"}]}, ["image", "label"]),
        ("cgan.generate", {"parameters": SEED, "outputs": [{"name": "image"}] * 2}, ["twice"]),
        ("cgan.generate", {"parameters": SEED, "model_name": "gan.generate"}, ["model_name"]),
        ("gan.generate", {"inputs": [LABEL], "parameters": SEED}, ["no input"]),
        ("gan.generate", {"inputs": [LATENT | {"data": [1001.0] * 200}]}, ["1000"]),
        ("cgan.discriminate", {"inputs": [IMAGE, LABEL], "parameters": SEED}, ["seed", "no latent"]),
        ("lenet.classify", {"inputs": [IMAGE | {"datatype": "FP32", "data": [1.5] * 1568}]}, ["0 to 1"]),
        ("lenet.classify", {"inputs": [tensor("image", np.zeros((257, 28, 28), np.uint8))]}, ["256"]),
        ("lenet.classify", {"inputs": [IMAGE | {"shape": [2, 1, 28, 28]}]}, ["[-1, 28, 28]"]),
        ("lenet.classify", {"inputs": [IMAGE | {"extra": 1}]}, ["unknown", "datatype"]),
    ],
)
def test_a_request_that_the_model_does_not_take_is_told_what_it_takes(client, model, fields, words):
    error = error_of(client.post(f"/v2/models/{model}/infer", json=fields))
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"id":"a","id":"b"}', b'{"parameters":{"seed":NaN}}', b"\xff", b"[" * 5000),
        b'{"inputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[' + b"9" * 5000 + b"]}]}",
        b'{"inputs":[' + b",".join([b"{}"] * 17) + b"]}",
        '{"id":"\\ud800","parameters":{"seed":1}}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client, body):
    error_of(client.post("/v2/models/gan.generate/infer", content=body, headers={"Content-Type": "application/json"}))


@pytest.mark.parametrize("fields", texts.WRONG_TENSORS.values(), ids=texts.WRONG_TENSORS)
def test_a_wrong_tensor_is_refused(client, fields):
    error = error_of(client.post("/v2/models/cgan.generate/infer", content=f"{{{fields}}}".encode()))
    assert "script" not in error, "input is not echoed"


@pytest.mark.parametrize(("length", "body"), texts.WRONG_BINARY)
def test_wrong_binary_tensors_are_refused(client, length, body):
    headers = {HEADER_LENGTH: length.decode()}
    error_of(client.post("/v2/models/cgan.generate/infer", content=body, headers=headers))


def test_numbers_that_are_not_finite_are_refused(client):
    for value in (np.nan, np.inf, -np.inf):
        content = np.full((1, 100), value, np.float32).tobytes()
        fields = {"name": "latent", "datatype": "FP32", "shape": [1, 100], "parameters": {"binary_data_size": 400}}
        error_of(post_binary(client, "gan.generate", {"inputs": [fields]}, content))


def test_json_is_bounded_and_binary_tensors_by_the_bytes_of_an_upload(client):
    body = b'{"id":"' + b"x" * MAX_JSON_BYTES + b'"}'
    assert "binary" in error_of(client.post("/v2/models/gan.generate/infer", content=body))
    error_of(client.post("/v2/models/gan.generate/infer", content=bytes(2**23 + 1)), 413)


def test_media_types_and_codings_of_other_kinds_are_refused(client):
    path, body = "/v2/models/gan.generate/infer", b'{"parameters":{"seed":1}}'
    assert client.post(path, content=body).status_code == 200, "Triton's client sends no media type"
    error_of(client.post(path, content=body, headers={"Content-Type": "text/plain"}), 415)
    error_of(client.post(path, content=body, headers={"Content-Encoding": "gzip"}), 415)
    error_of(client.post(path, content=body, headers={"Accept": "image/png"}), 406)
    error_of(client.post(f"{path}?seed=1", content=body))
    error_of(client.get(path), 405)
    error_of(client.get("/v2/nowhere"), 404)


def test_requests_are_admitted_batched_and_timed_as_all_others(tiny_models, gate):
    with serving(models_dir=tiny_models, max_requests=1, max_queued_rows=256) as client:
        path = "/v2/models/plain.generate/infer"
        seeded = {"parameters": {"seed": 1, "n": 2}}
        late = client.post(path, json=seeded, headers={"X-Request-Timeout": "0.000001"})
        error_of(late, 504)
        with gate.hold(client, path, json=seeded):
            refused = client.post(path, json=seeded)
            error_of(refused, 503)
            assert 1 <= int(refused.headers["retry-after"]) <= 3
            assert client.get("/v2/health/ready").json() == {"ready": True}
        queue = {"model": "plain", "operation": "infer_generate"}
        assert metric(client.get("/metrics").text, "digits_images_total", **queue) == 2


def test_pixels_of_an_answer_are_limited(tiny_models):
    with serving(models_dir=tiny_models, max_answer_pixels=2**16) as client:
        most = 2**16 // math.prod((28, 28))
        for n, status in ((most, 200), (most + 1, 422)):
            assert post(client, "plain.generate", parameters={"seed": 1, "n": n}).status_code == status


def test_before_models_are_loaded_the_server_is_live_and_not_ready(tmp_path):
    with serving(models_dir=tmp_path) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        for path in ("/v2/health/ready", "/v2", "/v2/models/gan.generate", "/v2/models/gan.generate/ready"):
            error_of(client.get(path), 503)

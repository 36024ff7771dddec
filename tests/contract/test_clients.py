"""Generators of clients understand the OpenAPI description, and the clients that they make work."""

import importlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.api.reading import unbase64
from tests.tiny_models import LATENT_DIM

# By tag.
OPERATIONS = {
    "images": (
        *("generate", "interpolate", "interpolate_between", "normalize"),
        *("reconstruct", "score", "classify", "upscale"),
    ),
    "models": ("describe_model", "list_models", "model_history", "model_picture"),
    "health": ("livez", "metrics", "readyz"),
}
SCRIPTS = Path(sys.executable).parent


def generate(command: list[str]) -> str:
    """Run a generator, which runs a formatter of its own; what it printed."""
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def description(client, tmp_path_factory):
    """The file of the description that the service has."""
    path = tmp_path_factory.mktemp("description") / "openapi.json"
    path.write_bytes(client.get("/openapi.json").content)
    return path


@pytest.fixture(scope="module")
def importing(tmp_path_factory):
    """A folder whose modules can be imported."""
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def generated(client, labelled, description, importing):
    """The client that openapi-python-client makes: its operations, models and types, and callers of two services."""
    command = ["openapi_python_client", "generate", "--path", str(description), "--meta", "none"]
    printed = generate([*command, "--output-path", str(importing / "digits_client"), "--fail-on-warning"])
    assert "warning" not in printed.lower()
    package = importlib.import_module("digits_client")
    operations = {
        name: importlib.import_module(f"digits_client.api.{tag}.{name}").sync
        for tag, names in OPERATIONS.items()
        for name in names
    }
    callers = [
        package.Client(base_url=str(each.base_url), raise_on_unexpected_status=True) for each in (client, labelled)
    ]
    with callers[0], callers[1]:
        yield SimpleNamespace(
            **operations,
            models=importlib.import_module("digits_client.models"),
            types=importlib.import_module("digits_client.types"),
            caller=callers[0],
            caller_of_labelled=callers[1],
        )


@pytest.fixture(scope="module")
def classes(description, importing):
    """The classes that datamodel-code-generator makes."""
    command = ["datamodel_code_generator", "--input", str(description), "--input-file-type", "openapi"]
    command += ["--output", str(importing / "digits_classes.py"), "--output-model-type", "pydantic_v2.BaseModel"]
    generate(command)
    return importlib.import_module("digits_classes")


def test_a_generated_client_has_a_typed_answer(generated):
    body = generated.models.GenerateRequest(model="cgan", n=2, seed=8, label="7")
    answer = generated.generate(client=generated.caller, body=body)
    assert isinstance(answer, generated.models.GenerateAnswer)
    assert (answer.model, answer.seed, [item.label for item in answer.images]) == ("cgan", 8, ["7", "7"])
    assert unbase64(answer.images[0].png).shape == (28, 28)


def test_a_generated_client_has_the_manifests_of_the_models(generated):
    listed = generated.list_models(client=generated.caller)
    assert isinstance(listed, generated.models.ModelList)
    assert {model.name: model.image.shape for model in listed.models}["cgan"] == [1, 28, 28]
    detail = generated.describe_model("cgan", client=generated.caller)
    assert isinstance(detail, generated.models.ModelDetail)
    assert detail.manifest.classes == list("0123456789")
    assert detail.manifest.quality.figures["recall"].value > 0
    history = generated.model_history("dcgan", client=generated.caller)
    assert [row["epoch"] for row in history.epochs] == list(range(1, len(history.epochs) + 1))
    picture = generated.model_picture("dcgan", "film", client=generated.caller)
    assert picture.payload.read().startswith(b"\x89PNG")


def test_a_generated_client_has_the_health_of_the_service(generated):
    assert generated.livez(client=generated.caller).status == "alive"
    assert "cgan" in generated.readyz(client=generated.caller).models
    assert "digits_ready 1.0" in generated.metrics(client=generated.caller)


def test_a_generated_client_has_a_typed_problem(generated):
    for problem in (
        generated.generate(client=generated.caller, body=generated.models.GenerateRequest(model="unknown")),
        generated.describe_model("unknown", client=generated.caller),
    ):
        assert isinstance(problem, generated.models.Problem)
        assert (problem.status, problem.code) == (404, "model_not_found")


def test_a_generated_client_has_the_faults_of_its_request(generated):
    problem = generated.generate(client=generated.caller, body=generated.models.GenerateRequest(n=0))
    assert isinstance(problem, generated.models.Problem)
    assert [fault.location for fault in problem.errors] == [["body", "n"]]


def test_a_generated_client_sends_queries(generated):
    answer = generated.interpolate(client=generated.caller, model="vae", from_seed=1, to_seed=2, steps=3)
    assert isinstance(answer, generated.models.InterpolateAnswer)
    assert (answer.from_seed, answer.to_seed, len(answer.images)) == (1, 2, 3)


def test_a_generated_client_sends_json_where_files_are_accepted_too(generated):
    body = generated.models.InterpolateRequest(model="vae", from_seed=1, to_seed=2, steps=4)
    answer = generated.interpolate_between(client=generated.caller, body=body)
    assert isinstance(answer, generated.models.InterpolateAnswer)
    assert len(answer.images) == 4
    answer = generated.score(client=generated.caller, body=generated.models.ScoreRequest(n=3))
    assert isinstance(answer, generated.models.ScoreAnswer)
    assert len(answer.scores) == 3


@pytest.fixture
def file(generated, digit):
    """Makes a file to send."""
    return lambda: generated.types.File(payload=BytesIO(digit), file_name="7.png", mime_type="image/png")


def test_a_generated_client_sends_files(generated, file):
    models = generated.models
    for body in (file(), models.ReconstructForm(file=file())):
        answer = generated.reconstruct(client=generated.caller, body=body, model="vae")
        assert isinstance(answer, models.ReconstructAnswer)
    answer = generated.score(client=generated.caller, body=models.ScoreForm(files=[file(), file()]), model="gan")
    assert isinstance(answer, models.ScoreAnswer)
    assert len(answer.scores) == 2
    body = models.InterpolateForm(files=[file(), file()])
    answer = generated.interpolate_between(client=generated.caller, body=body, steps=3)
    assert isinstance(answer, models.InterpolateAnswer)
    assert len(answer.images) == 3


def test_a_generated_client_classifies_and_upscales(generated, file):
    models, caller = generated.models, generated.caller_of_labelled
    answer = generated.classify(client=caller, body=models.ClassifyForm(files=[file(), file()]))
    assert isinstance(answer, models.ClassifyAnswer)
    assert [set(item.probabilities.to_dict()) for item in answer.results] == [set("0123456789")] * 2
    answer = generated.upscale(client=caller, body=models.UpscaleForm(files=[file()]), factor=2)
    assert isinstance(answer, models.UpscaleAnswer)
    assert (answer.factor, unbase64(answer.images[0].png).shape) == (2, (28, 28))
    answer = generated.upscale(client=caller, body=models.UpscaleRequest(n=3), factor=4)
    assert isinstance(answer, models.UpscaleAnswer)
    assert (answer.factor, len(answer.images)) == (4, 3)


def test_generated_classes_hold_every_request(classes):
    assert classes.GenerateRequest(n=256, label=["3", 8]).model_dump(exclude_unset=True) == {
        "n": 256,
        "label": ["3", 8],
    }
    assert classes.InterpolateRequest(from_seed=1, to_seed=2, steps=8).steps == 8
    assert classes.ScoreRequest(n=4, seed=8).seed == 8
    assert classes.UpscaleRequest(factor=4, n=4).model_dump(mode="json", exclude_unset=True) == {"factor": 4, "n": 4}
    for request in ({"n": 100_001}, {"n": 0}, {"seed": 2**53}, {"temperature": 3}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            classes.GenerateRequest(**request)


def test_generated_classes_hold_every_answer_and_problem(classes, client, labelled, digit):
    generated: list[dict[str, Any]] = [
        {"model": name, "n": 33, "first": 5} for name in ("boots", "cgan", "fitted", "gan", "plain")
    ]
    generated += [{"n": 3, "return_latents": True}, {"model": "plain", "latents": [[0.5] * LATENT_DIM]}]
    paths = [{}, {"model": "fitted", "to_label": "3"}, {"from_latent": "0.5," * (LATENT_DIM - 1) + "0.5"}]
    models = [{"model": "fitted", "seed": 1}, {"model": "cvae", "label": "7"}, {"model": "plain"}]
    critics = [{"model": "cgan", "label": "7"}, {"model": "gan"}, {"model": "referee"}]
    answers = {
        "GenerateAnswer": [labelled.post("/generate", json=body) for body in generated],
        "InterpolateAnswer": [
            *(labelled.get("/interpolate", params=params) for params in paths),
            labelled.post("/interpolate", files=[("files", digit)] * 2),
        ],
        "NormalizeAnswer": [labelled.post("/normalize", files={"file": digit})],
        "ReconstructAnswer": [labelled.post("/reconstruct", params=each, files={"file": digit}) for each in models],
        "ScoreAnswer": [
            *(labelled.post("/score", params=params, files={"files": digit}) for params in critics),
            *(labelled.post("/score", json={"n": 9} | body) for body in critics),
        ],
        "ClassifyAnswer": [labelled.post("/classify", files=[("files", digit)] * 3)],
        "UpscaleAnswer": [
            labelled.post("/upscale", params={"factor": 2}, files={"files": digit}),
            labelled.post("/upscale", json={"n": 33, "first": 5}),
        ],
        "ModelList": [client.get("/models")],
        "ModelDetail": [client.get("/models/cgan")],
        "Ready": [client.get("/readyz")],
        "Problem": [client.post("/generate", json={"n": 0})],
    }
    for name, each in ((name, answer) for name, given in answers.items() for answer in given):
        assert each.status_code == (422 if name == "Problem" else 200), each.text
        made = getattr(classes, name).model_validate_json(each.content)
        assert made.model_dump(mode="json", exclude_unset=True) == each.json(), name

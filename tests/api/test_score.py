"""POST /score in each form."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from tests.api.reading import arrays, assert_named, problem_of
from tests.conftest import FIXTURES
from tests.corpus.files import built, header, saved

DIGITS = [path.read_bytes() for path in sorted((FIXTURES / "mnist").glob("*.png"))]


def test_uploads_are_scored_in_order(client):
    answer = client.post("/score", files=[("files", content) for content in DIGITS])
    assert_named(answer, "gan")
    body = answer.json()
    assert body["seed"] is None
    assert body["generator"] is None
    assert [item["index"] for item in body["scores"]] == list(range(len(DIGITS)))
    for number, item in enumerate(body["scores"]):
        assert item["probability"] == pytest.approx(1 / (1 + math.exp(-item["logit"])), rel=1e-5)
        alone = client.post("/score", files={"files": DIGITS[number]}).json()["scores"]
        assert alone == [{**item, "index": 0}]


def test_the_answer_says_what_the_number_means(client):
    meaning = client.post("/score", json={"seed": 1}).json()["meaning"]
    assert "training data rather than from the generator" in meaning
    assert "not calibrated" in meaning
    assert "cannot be compared between models" in meaning


def test_generated_images_score_as_their_pngs_do(client):
    seeded = client.post("/score", json={"model": "gan", "n": 5, "seed": 3, "first": 2})
    assert_named(seeded, "gan")
    body = seeded.json()
    assert (body["seed"], body["generator"]) == (3, "gan")
    assert [item["index"] for item in body["scores"]] == [2, 3, 4, 5, 6]
    images = client.post("/generate", json={"model": "gan", "n": 5, "seed": 3, "first": 2}).json()["images"]
    files = [("files", base64.b64decode(item["png"])) for item in images]
    uploaded = client.post("/score", files=files, params={"normalize": False}).json()["scores"]
    assert [item["logit"] for item in uploaded] == [item["logit"] for item in body["scores"]]


def test_another_models_images_can_be_scored(client):
    body = client.post("/score", json={"model": "gan", "generator": "vae", "n": 2, "seed": 3}).json()
    assert (body["model"], body["generator"]) == ("gan", "vae")
    own = client.post("/score", json={"model": "gan", "n": 2, "seed": 3}).json()
    assert own["scores"] != body["scores"]


def test_a_drawn_seed_is_told(client):
    body = client.post("/score", json={}).json()
    assert client.post("/score", json={"seed": body["seed"]}).json() == body


def test_npz_holds_logits_and_probabilities(client):
    answer = client.post("/score", json={"model": "gan", "n": 3, "seed": 1}, headers={"Accept": "application/x-npz"})
    assert_named(answer, "gan")
    loaded = arrays(answer.content)
    scores = client.post("/score", json={"model": "gan", "n": 3, "seed": 1}).json()["scores"]
    assert loaded["logits"].dtype == loaded["probabilities"].dtype == np.float32
    assert loaded["logits"].tolist() == [item["logit"] for item in scores]


def test_there_is_no_picture_of_a_score(client):
    body = problem_of(client.post("/score", json={}, headers={"Accept": "image/png"}), 406, "not_acceptable")
    assert "application/json, application/x-npz" in body["detail"]


def test_real_digits_score_above_noise(client):
    noise = []
    for seed in range(10):
        pixels = np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        noise.append(("files", buffer.getvalue()))
    noisy = client.post("/score", files=noise, params={"normalize": False}).json()["scores"]
    real = client.post("/score", files=[("files", content) for content in DIGITS]).json()["scores"]
    assert np.mean([item["logit"] for item in real]) > np.mean([item["logit"] for item in noisy])


@pytest.mark.parametrize(
    "body",
    [
        {"n": 0},
        {"n": 257},
        {"n": "3"},
        {"n": True},
        {"seed": -1},
        {"seed": 2**53},
        {"first": -1},
        {"first": 2**53 - 1, "n": 2},
        {"unknown": 1},
        {"files": []},
        [],
    ],
)
def test_a_bad_parameter_is_refused(client, body):
    problem_of(client.post("/score", json=body), 422, "invalid_request")


def test_more_files_than_allowed_are_refused(client, digit):
    assert client.post("/score", files=[("files", digit)] * 64).status_code == 200
    problem_of(client.post("/score", files=[("files", digit)] * 65), 422, "invalid_request")


def test_many_pixels_are_refused_by_the_headers_alone(client):
    # With pixels that cannot be decoded: looking at them would tell of the damage.
    large = built(header(1024, 1024), b"")
    body = problem_of(client.post("/score", files=[("files", large)] * 5), 422, "invalid_image")
    assert body["detail"] == "The images of a request may have 4194304 pixels in all; send fewer or smaller ones."
    body = problem_of(client.post("/score", files=[("files", large)] * 4), 422, "invalid_image")
    assert "damaged or cut short" in body["detail"]


def test_ordinary_files_are_not_too_many_pixels(client):
    def scores(*contents: bytes) -> int:
        answer = client.post("/score", files=[("files", each) for each in contents], params={"normalize": False})
        assert answer.status_code == 200, answer.text
        return len(answer.json()["scores"])

    photo = Image.linear_gradient("L").resize((1024, 1024)).convert("RGB")
    progressive = saved(photo, "JPEG", progressive=True)
    assert progressive.count(b"\xff\xda") >= 10
    assert scores(saved(photo, "PNG")) == 1
    assert scores(*[progressive] * 4) == 4
    assert scores(*[saved(Image.linear_gradient("L"), "PNG")] * 64) == 64


def test_one_bad_file_among_good_ones_is_refused(client, digit):
    problem_of(client.post("/score", files=[("files", digit), ("files", b"no image")]), 422, "invalid_image")


def test_a_model_without_a_discriminator_is_refused_naming_one_that_has_it(client, digit):
    answer = client.post("/score", params={"model": "vae"}, files={"files": digit})
    assert problem_of(answer, 422, "capability_missing")["detail"] == "model vae cannot discriminate; gan can"
    problem_of(client.post("/score", json={"model": "vae"}), 422, "capability_missing")


def test_unknown_models_are_not_found(client, digit):
    problem_of(client.post("/score", json={"model": "nobody"}), 404, "model_not_found")
    problem_of(client.post("/score", json={"generator": "nobody"}), 404, "model_not_found")
    problem_of(client.post("/score", params={"model": "nobody"}, files={"files": digit}), 404, "model_not_found")

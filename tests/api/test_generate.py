"""POST /generate in each form."""

import numpy as np
import pytest

from app.inference.latents import MAX_SEED, normal_rows
from tests.api.reading import arrays, assert_named, image, pixels_of, problem_of
from tests.conftest import ROOT, serving

NPZ = {"Accept": "application/x-npz"}
PNG = {"Accept": "image/png"}


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_json_holds_one_png_an_image(client, model):
    answer = client.post("/generate", json={"model": model, "n": 3, "seed": 7})
    assert_named(answer, model)
    body = answer.json()
    assert body["model"] == model
    assert body["seed"] == 7
    assert body["digest"] == answer.headers["x-model-digest"]
    assert body["runtime"] == answer.headers["x-runtime"]
    assert answer.headers["x-seed"] == "7"
    assert [item["index"] for item in body["images"]] == [0, 1, 2]
    for pixels in pixels_of(answer):
        assert pixels.shape == (28, 28)
        assert pixels.max() > 128  # there is ink
        assert pixels.mean() < 100  # on dark ground


def test_png_is_a_grid_row_by_row(client):
    single = pixels_of(client.post("/generate", json={"n": 5, "seed": 1}))
    answer = client.post("/generate", json={"n": 5, "seed": 1}, headers=PNG)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "1"
    grid = image(answer.content)
    assert grid.shape == (2 * 28, 3 * 28)  # ceil(sqrt 5) columns
    for number, pixels in enumerate(single):
        row, column = divmod(number, 3)
        assert np.array_equal(grid[28 * row : 28 * row + 28, 28 * column : 28 * column + 28], pixels)
    assert not grid[28:, 56:].any()


def test_a_single_png_is_the_image_itself(client):
    answer = client.post("/generate", json={"n": 1, "seed": 1}, headers=PNG)
    assert np.array_equal(image(answer.content), pixels_of(client.post("/generate", json={"n": 1, "seed": 1}))[0])


def test_npz_holds_images_latents_and_indices(client):
    answer = client.post("/generate", json={"model": "gan", "n": 4, "seed": 9, "first": 10}, headers=NPZ)
    assert answer.headers["content-type"] == "application/x-npz"
    assert_named(answer, "gan")
    loaded = arrays(answer.content)
    assert loaded["images"].shape == (4, 28, 28)
    assert loaded["images"].dtype == np.uint8
    assert np.array_equal(loaded["latents"], normal_rows(9, 10, 4, 100))
    assert loaded["index"].tolist() == [10, 11, 12, 13]
    as_png = pixels_of(client.post("/generate", json={"model": "gan", "n": 4, "seed": 9, "first": 10}))
    assert np.array_equal(loaded["images"], np.stack(as_png))


def test_the_same_question_has_the_same_bytes_in_each_form(client):
    for headers in ({}, PNG, NPZ):
        answers = [client.post("/generate", json={"n": 6, "seed": 3}, headers=headers) for _ in range(2)]
        assert answers[0].content == answers[1].content


def test_an_image_does_not_depend_on_how_many_were_asked(client):
    whole = client.post("/generate", json={"n": 33, "seed": 5}).json()["images"]
    for n in (1, 2, 7, 32):
        assert client.post("/generate", json={"n": n, "seed": 5}).json()["images"] == whole[:n]


def test_image_37_can_be_made_alone(client):
    whole = client.post("/generate", json={"n": 40, "seed": 5}).json()["images"]
    alone = client.post("/generate", json={"n": 1, "seed": 5, "first": 37}).json()["images"]
    assert alone == [whole[37]]


def test_a_drawn_seed_is_told_and_makes_the_same_images_again(client):
    first = client.post("/generate", json={"n": 2}).json()
    second = client.post("/generate", json={"n": 2}).json()
    assert first["seed"] != second["seed"]
    again = client.post("/generate", json={"n": 2, "seed": first["seed"]}).json()
    assert again == first


def test_an_empty_object_asks_for_one_image(client):
    assert len(client.post("/generate", json={}).json()["images"]) == 1


def test_given_latents_make_the_images_of_the_seed_they_come_from(client):
    latents = normal_rows(7, 0, 2, 16).tolist()
    answer = client.post("/generate", json={"model": "vae", "latents": latents})
    assert answer.json()["seed"] is None
    assert "x-seed" not in answer.headers
    seeded = client.post("/generate", json={"model": "vae", "n": 2, "seed": 7, "prior": "normal"})
    assert answer.json()["images"] == seeded.json()["images"]


def test_scale_enlarges_by_whole_pixels(client):
    plain = pixels_of(client.post("/generate", json={"n": 1, "seed": 2}))[0]
    for scale in (2, 16):
        large = pixels_of(client.post("/generate", json={"n": 1, "seed": 2, "scale": scale}))[0]
        assert np.array_equal(large, np.kron(plain, np.ones((scale, scale), np.uint8)))
    grid = image(client.post("/generate", json={"n": 4, "seed": 2, "scale": 3}, headers=PNG).content)
    assert grid.shape == (168, 168)


def test_the_most_images_allowed_are_made_and_one_more_is_refused(client):
    answer = client.post("/generate", json={"model": "vae", "n": 256, "seed": 0}, headers=PNG)
    assert image(answer.content).shape == (16 * 28, 16 * 28)
    body = problem_of(client.post("/generate", json={"n": 257}), 422, "invalid_request")
    assert "256" in body["detail"]


def test_the_largest_seed_and_index_work(client):
    answer = client.post("/generate", json={"n": 1, "seed": MAX_SEED, "first": MAX_SEED})
    assert answer.json()["seed"] == MAX_SEED
    assert answer.json()["images"][0]["index"] == MAX_SEED


def test_without_a_model_the_first_capable_one_by_name_serves(client):
    assert client.post("/generate", json={}).json()["model"] == "cgan"


def test_without_a_model_the_default_one_serves_where_it_is_capable():
    with serving(default_model="vae") as client:
        assert client.post("/generate", json={}).json()["model"] == "vae"
        assert client.post("/score", json={}).json()["model"] == "cgan"


@pytest.mark.parametrize(
    "body",
    [
        {"n": 0},
        {"n": -1},
        {"n": "5"},
        {"n": True},
        {"n": 1.5},
        {"n": None, "seed": -1},
        {"seed": MAX_SEED + 1},
        {"seed": "7"},
        {"seed": False},
        {"first": -1},
        {"first": MAX_SEED, "n": 2},
        {"scale": 0},
        {"scale": 17},
        {"scale": 2.0},
        {"model": ""},
        {"model": 5},
        {"unknown": 1},
        {"latents": []},
        {"latents": [[]]},
        {"latents": [[0.0] * 15], "model": "vae"},
        {"latents": [[0.0] * 16, [0.0] * 15], "model": "vae"},
        {"latents": [0.0] * 16, "model": "vae"},
        {"latents": [["0"] * 16], "model": "vae"},
        {"latents": [[1e4] * 16], "model": "vae"},
        {"latents": [[0.0] * 16], "model": "vae", "seed": 1},
        {"latents": [[0.0] * 16], "model": "vae", "first": 1},
        {"latents": [[0.0] * 16], "model": "vae", "n": 2},
        [],
        "text",
        5,
    ],
)
def test_a_bad_parameter_is_refused(client, body):
    problem_of(client.post("/generate", json=body), 422, "invalid_request")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{",
        b'{"seed": NaN}',
        b'{"n": 1e309}',
        b'{"model": "vae", "latents": [[NaN,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]}',
        b'{"model": "vae", "latents": [[1e999,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]}',
        b'{"model": "\\ud800"}',
        b'{"n": 1} x',
        b"\xff\xfe{\x00}\x00",
        b"[" * 10_000,
    ],
)
def test_a_body_that_is_no_clean_json_is_refused(client, content):
    answer = client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    problem_of(answer, 422, "invalid_request")


def test_a_fault_is_located_without_repeating_what_was_sent(client):
    answer = client.post("/generate", json={"n": "not-a-number-at-all", "my-own-field": 1})
    body = problem_of(answer, 422, "invalid_request")
    assert {"location": ["body", "n"], "message": "Input should be a valid integer"} in body["errors"]
    assert "not-a-number-at-all" not in answer.text
    assert "my-own-field" not in answer.text


def test_many_faults_are_cut_short(client):
    answer = client.post("/generate", json={f"field{number}": 1 for number in range(500)})
    body = problem_of(answer, 422, "invalid_request")
    assert len(body["errors"]) == 8
    assert "of 500" in body["detail"]


def test_an_unknown_model_is_not_found_and_those_there_are_are_named(client):
    body = problem_of(client.post("/generate", json={"model": "nobody"}), 404, "model_not_found")
    shipped = sorted(path.parent.name for path in ROOT.glob("models/*/manifest.json"))
    assert body["detail"] == f"no such model; there are: {', '.join(shipped)}"


def test_more_pixels_than_an_answer_may_have_are_refused(client):
    body = problem_of(client.post("/generate", json={"n": 256, "scale": 16}), 422, "invalid_request")
    assert "pixels" in body["detail"]
    assert client.post("/generate", json={"model": "vae", "n": 80, "scale": 16}, headers=PNG).status_code == 200

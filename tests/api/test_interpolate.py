"""GET and POST /interpolate in each form."""

import numpy as np
import pytest

from app.inference.latents import normal_rows
from tests.api.reading import arrays, assert_named, frames, image, pixels_of, problem_of
from tests.conftest import FIXTURES

SEEDS = {"from_seed": 1, "to_seed": 2, "steps": 5}


def first_image(client, model, seed):
    return pixels_of(client.post("/generate", json={"model": model, "n": 1, "seed": seed}))[0]


@pytest.mark.parametrize("model", ["vae", "gan"])
@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_the_ends_are_image_0_of_generate(client, model, path):
    answer = client.get("/interpolate", params={**SEEDS, "model": model, "path": path})
    assert_named(answer, model)
    body = answer.json()
    assert (body["seed"], body["from_seed"], body["to_seed"], body["path"]) == (1, 1, 2, path)
    assert [item["index"] for item in body["images"]] == [0, 1, 2, 3, 4]
    images = pixels_of(answer)
    assert np.array_equal(images[0], first_image(client, model, 1))
    assert np.array_equal(images[-1], first_image(client, model, 2))
    assert len({pixels.tobytes() for pixels in images}) == 5


def test_png_is_a_strip(client):
    answer = client.get("/interpolate", params=SEEDS, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert (answer.headers["x-from-seed"], answer.headers["x-to-seed"]) == ("1", "2")
    strip = image(answer.content)
    assert strip.shape == (28, 5 * 28)
    images = pixels_of(client.get("/interpolate", params=SEEDS))
    assert np.array_equal(strip, np.concatenate(images, axis=1))


def test_apng_has_a_frame_for_each_step(client):
    answer = client.get("/interpolate", params={**SEEDS, "scale": 2}, headers={"Accept": "image/apng"})
    assert answer.headers["content-type"] == "image/apng"
    images = pixels_of(client.get("/interpolate", params={**SEEDS, "scale": 2}))
    taken = frames(answer.content)
    assert len(taken) == 5
    assert all(np.array_equal(frame, pixels) for frame, pixels in zip(taken, images, strict=True))


def test_npz_holds_images_and_latents(client):
    answer = client.get(
        "/interpolate", params={**SEEDS, "model": "vae", "prior": "normal"}, headers={"Accept": "application/x-npz"}
    )
    loaded = arrays(answer.content)
    assert loaded["images"].shape == (5, 28, 28)
    assert np.array_equal(loaded["latents"][0], normal_rows(1, 0, 1, 16)[0])


def test_a_seeded_answer_has_a_strong_etag_and_is_not_sent_twice(client):
    first = client.get("/interpolate", params=SEEDS)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for header in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = client.get("/interpolate", params=SEEDS, headers={"If-None-Match": header})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == etag
        named = [name for name in first.headers if name.startswith("x-") and name != "x-request-id"]
        assert len(named) == 7
        assert [again.headers[name] for name in named] == [first.headers[name] for name in named]
    assert client.get("/interpolate", params=SEEDS, headers={"If-None-Match": '"other"'}).content == first.content


def test_answers_of_other_bytes_have_other_etags(client):
    variants: list[tuple[dict[str, object], dict[str, str]]] = [
        ({}, {}),
        ({"to_seed": 3}, {}),
        ({"steps": 6}, {}),
        ({"path": "lerp"}, {}),
        ({"scale": 2}, {}),
        ({"model": "vae"}, {}),
        ({}, {"Accept": "image/png"}),
        ({}, {"Accept": "image/apng"}),
    ]
    etags = [client.get("/interpolate", params=SEEDS | more, headers=h).headers["etag"] for more, h in variants]
    assert len(set(etags)) == len(variants)


def test_drawn_ends_are_told_have_no_etag_and_can_be_asked_again(client):
    answer = client.get("/interpolate", params={"steps": 3})
    assert "etag" not in answer.headers
    body = answer.json()
    seeds = {"from_seed": body["from_seed"], "to_seed": body["to_seed"], "steps": 3}
    assert client.get("/interpolate", params=seeds).json() == body


def test_latents_in_the_query_are_ends(client):
    ends = {
        "from_latent": ",".join(map(str, normal_rows(1, 0, 1, 16)[0].tolist())),
        "to_latent": ",".join(map(str, normal_rows(2, 0, 1, 16)[0].tolist())),
    }
    answer = client.get("/interpolate", params={"model": "vae", "steps": 5, "path": "slerp", **ends})
    assert answer.json()["seed"] is None
    assert "etag" in answer.headers
    seeded = client.get("/interpolate", params={**SEEDS, "model": "vae", "prior": "normal"})
    assert answer.json()["images"] == seeded.json()["images"]


def test_post_takes_latents_and_seeds_as_json(client):
    latent = normal_rows(1, 0, 1, 16)[0].tolist()
    body = {"model": "vae", "from_latent": latent, "to_seed": 2, "steps": 5, "prior": "normal"}
    answer = client.post("/interpolate", json=body)
    assert_named(answer, "vae")
    assert answer.json()["to_seed"] == 2
    seeded = client.get("/interpolate", params={**SEEDS, "model": "vae", "prior": "normal"})
    assert answer.json()["images"] == seeded.json()["images"]


@pytest.mark.parametrize("accept", ["application/json", "image/png", "image/apng", "application/x-npz"])
def test_post_walks_between_two_uploads_in_each_form(client, accept):
    files = [("files", (FIXTURES / "mnist" / name).read_bytes()) for name in ("1.png", "7.png")]
    answer = client.post("/interpolate", files=files, params={"steps": 4}, headers={"Accept": accept})
    assert_named(answer, "vae")
    assert answer.headers["content-type"] == accept
    if accept == "application/json":
        images = pixels_of(answer)
        ends = [
            client.post("/reconstruct", files={"file": content}, headers={"Accept": "application/x-npz"}).content
            for _, content in files
        ]
        assert np.array_equal(images[0], arrays(ends[0])["reconstruction"])
        assert np.array_equal(images[-1], arrays(ends[1])["reconstruction"])


@pytest.mark.parametrize(
    "params",
    [
        {"steps": 1},
        {"steps": 257},
        {"steps": "many"},
        {"path": "circle"},
        {"from_seed": -1},
        {"from_seed": 2**53},
        {"from_seed": "one"},
        {"unknown": 1},
        {"from_seed": 1, "from_latent": "0," * 99 + "0"},
        {"from_latent": "0,0,0"},
        {"to_latent": "a,b"},
        {"to_latent": ""},
        {"model": "vae", "to_latent": "nan," * 15 + "0"},
        {"model": "vae", "to_latent": "inf," * 15 + "0"},
        {"scale": 0},
        {"from_seed": "1_000"},
        {"from_seed": "1.0"},
        {"from_seed": " 1 "},
        {"from_seed": "\u0661"},
        {"steps": "2.0"},
        {"model": "vae", "to_latent": "1_0" + ",0" * 15},
        {"model": "vae", "to_latent": "\u0661" + ",0" * 15},
    ],
)
def test_a_bad_parameter_is_refused(client, params):
    problem_of(client.get("/interpolate", params=params), 422, "invalid_request")


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_uploads_than_two_is_refused(client, digit, count):
    files = [("files", digit)] * count
    problem_of(client.post("/interpolate", files=files), 422, "invalid_request")


def test_uploads_need_a_model_that_encodes(client, digit):
    answer = client.post("/interpolate", params={"model": "gan"}, files=[("files", digit)] * 2)
    body = problem_of(answer, 422, "capability_missing")
    assert body["detail"] == "model gan cannot encode; vae can"


def test_options_beside_a_json_body_are_refused(client):
    answer = client.post("/interpolate", params={"steps": 3}, json={"from_seed": 1})
    problem_of(answer, 422, "invalid_request")


def test_an_unknown_model_is_not_found(client):
    problem_of(client.get("/interpolate", params={"model": "nobody"}), 404, "model_not_found")

"""POST /normalize."""

import numpy as np
import pytest

from tests.api.reading import PNG, assert_named, image, problem_of, unbase64
from tests.conftest import FIXTURES

PHOTO = (FIXTURES / "drawings" / "2-table.jpg").read_bytes()


def normalize(client, content, headers=None, **params):
    return client.post("/normalize", files={"file": content}, params=params, headers=headers)


def test_the_answer_is_the_image_that_a_model_is_given(client):
    seen = client.post("/reconstruct", files={"file": PHOTO}, params={"model": "vae"}).json()["input"]
    answer = normalize(client, PHOTO, model="vae")
    assert_named(answer, "vae")
    assert answer.json()["input"] == seen


def test_as_png_it_is_one_image_of_the_same_pixels(client):
    pixels = unbase64(normalize(client, PHOTO).json()["input"]["png"])
    answer = normalize(client, PHOTO, headers=PNG, model="cgan")
    assert_named(answer, "cgan")
    assert np.array_equal(image(answer.content), pixels)
    assert image(normalize(client, PHOTO, headers=PNG, scale=3).content).shape == (84, 84)


def test_the_image_sent_on_as_it_is_has_the_answer_of_the_upload(client):
    small = normalize(client, PHOTO, headers=PNG).content
    for path, field in (("/reconstruct", "file"), ("/classify", "files")):
        sent_on = client.post(path, files={field: small}, params={"normalize": False})
        assert sent_on.json() == client.post(path, files={field: PHOTO}).json()


def test_the_form_is_that_of_the_named_model(labelled):
    pixels = image(normalize(labelled, PHOTO, headers=PNG, model="double").content)
    assert pixels.shape == (14, 14)


@pytest.mark.parametrize(
    ("params", "status"), [({"model": "dbn"}, 422), ({"model": "nobody"}, 404), ({"seed": 1}, 422)]
)
def test_a_model_that_takes_no_images_and_unknown_options_are_refused(client, digit, params, status):
    answer = normalize(client, digit, **params)
    problem_of(answer, status, answer.json()["code"])

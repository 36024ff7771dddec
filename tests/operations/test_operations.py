"""What several operations have in common."""

import numpy as np
import pytest

from tests.api.reading import image, png_file, problem_of, side_by_side, unbase64

# The operations that take uploads, with their form field.
UPLOADS = {"/normalize": "file", "/reconstruct": "file", "/score": "files", "/classify": "files", "/upscale": "files"}
ITEMS = {"/score": "scores", "/classify": "results", "/upscale": "images"}


def upload(client, path, *contents, **params):
    return client.post(path, files=[(UPLOADS[path], content) for content in contents], params=params)


@pytest.mark.parametrize("path", ["/generate", "/score", "/upscale"])
def test_a_seed_drawn_by_the_server_gives_the_same_answer_again(client, path):
    first = client.post(path, json={"n": 2}).json()
    assert client.post(path, json={"n": 2}).json()["seed"] != first["seed"]
    assert client.post(path, json={"n": 2, "seed": first["seed"]}).json() == first


@pytest.mark.parametrize("path", UPLOADS)
def test_dark_ink_on_light_ground_is_inverted_unless_normalization_is_off(client, digit, path):
    dark = png_file(255 - image(digit))
    bright, same, normalized, other = (
        upload(client, path, content, normalize=normalize).json()
        for content, normalize in ((digit, True), (digit, False), (dark, True), (dark, False))
    )
    assert bright == same
    assert other not in (bright, normalized)
    if path in {"/normalize", "/reconstruct"}:
        assert np.array_equal(unbase64(other["input"]["png"]), 255 - image(digit))
        assert np.corrcoef(unbase64(normalized["input"]["png"]).ravel(), image(digit).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("path", UPLOADS)
def test_each_upload_has_its_own_warnings_unless_it_is_taken_as_it_is(client, digit, path):
    files = [digit, side_by_side(digit, digit), digit]

    def codes(**params):
        if path in ITEMS:
            items = upload(client, path, *files, **params).json()[ITEMS[path]]
        else:
            items = [upload(client, path, file, **params).json() for file in files]
        return [[warning["code"] for warning in item["warnings"]] for item in items]

    assert codes() == [[], ["several_shapes"], []]
    assert codes(normalize=False) == [[], [], []]


@pytest.mark.parametrize("path", ITEMS)
def test_the_number_of_files_is_limited(client, digit, path):
    assert len(upload(client, path, *[digit] * 64).json()[ITEMS[path]]) == 64
    problem_of(upload(client, path, *[digit] * 65), 422, "invalid_request")


@pytest.mark.parametrize("path", ITEMS)
def test_one_bad_file_among_good_ones_is_refused(client, digit, path):
    problem_of(upload(client, path, digit, b"no image"), 422, "invalid_image")

"""POST /classify."""

import numpy as np
import pytest

from tests.api.reading import (
    NPZ,
    PNG,
    assert_named,
    assert_refused_naming,
    image,
    npz_of,
    png_file,
    problem_of,
    side_by_side,
)
from tests.conftest import FIXTURES
from tests.tiny_models import DIGITS

TEST_IMAGES = [(FIXTURES / "mnist" / f"{name}.png").read_bytes() for name in DIGITS]


def classify(client, contents, headers=None, **params):
    return client.post("/classify", files=[("files", content) for content in contents], params=params, headers=headers)


def test_uploads_are_classified_in_order_and_independently(labelled):
    answer = classify(labelled, TEST_IMAGES)
    assert_named(answer, "reader")
    assert "x-seed" not in answer.headers
    body = answer.json()
    assert (body["model"], body["digest"]) == ("reader", answer.headers["x-model-digest"])
    assert [item["index"] for item in body["results"]] == list(range(10))
    for content, item in zip(TEST_IMAGES, body["results"], strict=True):
        probabilities = item["probabilities"]
        assert tuple(probabilities) == DIGITS
        assert sum(probabilities.values()) == pytest.approx(1)
        assert item["label"] == max(probabilities, key=probabilities.get)
        assert classify(labelled, [content]).json()["results"] == [item | {"index": 0}]


def test_the_arrays_agree_with_the_json(labelled):
    loaded, results = npz_of(classify(labelled, TEST_IMAGES, NPZ)), classify(labelled, TEST_IMAGES).json()["results"]
    assert [loaded[name].dtype for name in ("probabilities", "labels")] == [np.dtype("f4"), np.dtype("i8")]
    assert loaded["probabilities"].tolist() == [[*item["probabilities"].values()] for item in results]
    assert [DIGITS[label] for label in loaded["labels"]] == [item["label"] for item in results]


def test_dark_ink_on_light_ground_is_inverted_unless_normalization_is_off(labelled, digit):
    dark = png_file(255 - image(digit))
    first, same, other = (
        classify(labelled, [content], normalize=normalize).json()["results"]
        for content, normalize in ((digit, True), (digit, False), (dark, False))
    )
    assert first == same != other
    assert classify(labelled, [dark]).json()["results"] != other


def test_each_upload_has_its_own_warnings(labelled, digit):
    files = [digit, side_by_side(digit, digit), digit]
    codes = [[each["code"] for each in item["warnings"]] for item in classify(labelled, files).json()["results"]]
    assert codes == [[], ["several_shapes"], []]
    assert all(item["warnings"] == [] for item in classify(labelled, files, normalize=False).json()["results"])


def test_classes_have_no_form_as_an_image(labelled, digit):
    problem_of(classify(labelled, [digit], PNG), 406, "not_acceptable")


def test_the_number_of_files_is_limited(labelled, digit):
    assert len(classify(labelled, [digit] * 64).json()["results"]) == 64
    problem_of(classify(labelled, [digit] * 65), 422, "invalid_request")


def test_a_model_that_cannot_is_refused_naming_one_that_can(labelled, digit):
    assert_refused_naming(classify(labelled, [digit], model="gan"), "reader")
    problem_of(classify(labelled, [digit], label="3"), 422, "invalid_request")

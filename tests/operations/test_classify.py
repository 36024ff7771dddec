"""POST /classify."""

import numpy as np
import pytest

from tests.api.reading import (
    NPZ,
    assert_named,
    assert_refused_naming,
    npz_of,
    problem_of,
)
from tests.conftest import TEST_IMAGES
from tests.tiny_models import DIGITS


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


def test_a_model_that_cannot_answer_is_refused_with_the_name_of_one_that_can(labelled, digit):
    assert_refused_naming(classify(labelled, [digit], model="gan"), "reader")
    problem_of(classify(labelled, [digit], label="3"), 422, "invalid_request")

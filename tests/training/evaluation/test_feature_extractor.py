"""Classifiers on disk are found by the digest of their data and verified by that of their weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.api.reading import image
from tests.conftest import TEST_IMAGES
from training.evaluation.feature_extractor import (
    ClassifierConfig,
    ClassifierDamaged,
    find_extractor,
    make_classifier,
)


def test_the_shipped_classifier_reads_the_committed_digits(extractor):
    pictures = [image(content) for content in TEST_IMAGES]
    features = extractor.features(torch.from_numpy(np.stack(pictures))[:, None])
    probabilities = extractor.probabilities(features)
    assert features.shape == (10, 84)
    assert probabilities.argmax(dim=1).tolist() == list(range(10))
    assert probabilities.max(dim=1).values.min() > 0.9
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(10))


def test_a_classifier_trained_here_is_found_for_its_data_and_for_no_other(dataset, tmp_path):
    assert find_extractor(dataset, tmp_path) is None
    weights = make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path), dataset)
    assert weights.is_relative_to(tmp_path)
    found = find_extractor(dataset, tmp_path)
    assert found is not None
    assert (found.record.dataset, found.record.classes, found.record.test_images) == ("strokes", 10, 32)
    verdicts = found.probabilities(found.features(dataset.test_images)).argmax(dim=1)
    assert found.record.test_accuracy == pytest.approx(float((verdicts == dataset.test_labels).double().mean()))
    assert find_extractor(replace(dataset, digest="f" * 64), tmp_path) is None


def test_damaged_weights_are_refused(dataset, tmp_path):
    weights = make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path), dataset)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ClassifierDamaged, match="SHA-256"):
        find_extractor(dataset, tmp_path)


def test_a_record_of_other_classes_than_the_data_has_is_refused(dataset, tmp_path):
    record = make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path), dataset).with_suffix(".json")
    record.write_text(record.read_text().replace('"classes": 10', '"classes": 11'))
    with pytest.raises(ClassifierDamaged, match=record.name):
        find_extractor(dataset, tmp_path)


def test_a_damaged_record_is_named(dataset, tmp_path):
    (tmp_path / "classifiers").mkdir()
    (tmp_path / "classifiers" / "x.json").write_bytes(b"{}")
    with pytest.raises(ClassifierDamaged, match=r"classifiers/x\.json: .") as caught:
        find_extractor(dataset, tmp_path)
    assert "\n" not in str(caught.value)

"""Figures by another classifier than that of the protocol, which are written nowhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.checkpoints.store import read_manifest
from tests.conftest import contents
from tests.tiny_models import Classifier, ConditionalGan, Critic, write
from tests.training.evaluation.test_eval_protocol import Copyist
from training.data import Dataset
from training.evaluation import evaluate
from training.evaluation.evaluate import CannotEvaluate, EvaluateConfig, evaluate_held_out
from training.evaluation.feature_extractor import ClassifierConfig, make_classifier
from training.evaluation.held_out import ArchivedClassifier, held_out_figures

SEEDS = (0, 1, 2)


class Brightest:
    """An archive whose classes are ten rows of the image."""

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 9:19].sum(dim=2).softmax(dim=1)


def test_test_images_are_perfect_and_wrong_labels_are_not(digits, extractor, manifest):
    plain = manifest.model_copy(update={"capabilities": ("generate",)})
    for classifier in (extractor, ArchivedClassifier(Brightest())):
        figures = held_out_figures(Copyist(digits.test_images), plain, digits, classifier, SEEDS)
        assert set(figures) == {"frechet_distance"}
        assert figures["frechet_distance"].value == pytest.approx(0, abs=1e-3)
        assert figures["frechet_distance"].floor
    conditional = plain.model_copy(update={"conditional": True})
    pictures = digits.test_images[:10]
    for images, right in ((pictures, 1), (pictures.roll(1, 0), 0)):
        agreement = held_out_figures(Copyist(images), conditional, digits, extractor, SEEDS)["label_agreement"]
        assert (agreement.value, agreement.floor) == (right, 1)


@pytest.fixture
def models(digits, tmp_path, monkeypatch) -> tuple[Path, Dataset]:
    """Tiny checkpoints of one data set: `cgan`, `critic` and `judge`, which classifies."""
    for name, module in (("cgan", ConditionalGan(10)), ("critic", Critic()), ("judge", Classifier(10))):
        write(tmp_path, name, module, digits.classes)
    manifest = read_manifest(tmp_path / "cgan" / "manifest.json")
    data = replace(digits, digest=manifest.dataset.digest)
    monkeypatch.setattr(evaluate, "load_dataset", lambda *_: data)
    return tmp_path, data


def test_a_checkpoint_and_weights_in_a_file_measure_and_change_no_file(models):
    directory, data = models
    weights = make_classifier(ClassifierConfig(epochs=1, seed=5, runs_dir=directory / "held-out"), data)
    before = contents(directory)
    for classifier in ("judge", str(weights)):
        config = EvaluateConfig(names=("cgan",), classifier=classifier, models_dir=directory)
        ((name, figures),) = evaluate_held_out(config)
        assert (name, set(figures)) == ("cgan", {"frechet_distance", "label_agreement"})
    assert contents(directory) == before


@pytest.mark.parametrize(("name", "classifier"), [("critic", "judge"), ("cgan", "critic")])
def test_a_model_without_images_and_a_classifier_without_classes_are_refused(models, name, classifier):
    config = EvaluateConfig(names=(name,), classifier=classifier, models_dir=models[0])
    with pytest.raises(CannotEvaluate, match="critic"):
        list(evaluate_held_out(config))


def test_weights_of_other_data_are_refused(models, dataset):
    directory, _ = models
    weights = make_classifier(ClassifierConfig(epochs=1, runs_dir=directory), replace(dataset, digest="f" * 64))
    config = EvaluateConfig(names=("cgan",), classifier=str(weights), models_dir=directory)
    with pytest.raises(CannotEvaluate, match="strokes"):
        list(evaluate_held_out(config))


def test_a_document_is_refused_since_nothing_is_written():
    with pytest.raises(ValueError, match="--document"):
        EvaluateConfig(names=("cgan",), classifier="vgg", document=Path("README.md"))

"""Evaluation of a checkpoint: what it writes, keeps and refuses."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.checkpoints.manifest import Manifest
from app.checkpoints.store import CheckpointError, read_manifest
from tests.conftest import contents
from tests.tiny_models import ConditionalGan, ConditionalVae, FittedVae, write
from training.evaluation import eval_protocol, evaluate
from training.evaluation.evaluate import (
    CannotEvaluate,
    DocumentConfig,
    evaluate_checkpoint,
    write_documents,
    write_tables,
)
from training.evaluation.feature_extractor import ClassifierConfig, make_classifier
from training.families.vae import VaeConfig

PICTURES_OF_A_VAE = ("samples.png", "reconstructions.png", "neighbours.png", "traversals.png")


@pytest.fixture
def directory(vae_run: VaeConfig, tmp_path: Path) -> Path:
    """A copy of a trained checkpoint without figures, pictures and card."""
    copy = tmp_path / "models" / "vae"
    shutil.copytree(vae_run.models_dir / "vae", copy)
    for path in [*copy.glob("*.png"), copy / "card.md"]:
        path.unlink()
    manifest = read(copy).model_copy(update={"quality": None})
    (copy / "manifest.json").write_bytes(manifest.file_content())
    return copy


def read(directory: Path) -> Manifest:
    return read_manifest(directory / "manifest.json")


def test_a_checkpoint_gets_figures_pictures_and_a_card_and_keeps_its_archives(directory, dataset, tmp_path):
    before = contents(directory)
    given = evaluate_checkpoint(directory, dataset, tmp_path)
    after = contents(directory)
    assert read(directory) == given
    assert given.quality is not None
    assert given.quality.figures
    assert given.model_copy(update={"quality": None}) == Manifest.model_validate_json(before["manifest.json"])
    evaluate_checkpoint(directory, dataset, tmp_path)
    assert contents(directory) == after
    assert set(after) - set(before) == {"card.md", "examples.png", *PICTURES_OF_A_VAE}
    for name in before:
        assert name == "manifest.json" or after[name] == before[name]
    for picture in PICTURES_OF_A_VAE:
        assert f"]({picture})" in after["card.md"].decode()


@pytest.mark.parametrize(
    ("module", "choices", "ways"),
    [
        (ConditionalGan(10), {"sampling": ("truncation",)}, {"normal"}),
        (ConditionalVae(10), {"sampling": ("temperature",)}, {"normal"}),
        (FittedVae(10), {"sampling": ("temperature",), "priors": ("fitted", "normal")}, {"fitted", "normal"}),
    ],
    ids=["cgan", "cvae", "fitted"],
)
def test_models_with_labels_are_measured_by_them(digits, tmp_path, module, choices, ways):
    directory = write(tmp_path, "labelled", module, digits.classes, **choices)
    data = replace(digits, digest=read(directory).dataset.digest)
    make_classifier(ClassifierConfig(epochs=1, runs_dir=tmp_path), data)
    quality = evaluate_checkpoint(directory, data, tmp_path).quality
    assert quality is not None
    for name in ("label_agreement", "classification_accuracy_score"):
        assert 0 <= quality.figures[name].value <= 1
    assert ("normal_prior_frechet_distance" in quality.figures) == ("fitted" in ways)
    assert {effect.prior for effect in quality.controls} == ways
    for effect in quality.controls:
        labelled = effect.prior == "fitted" or not isinstance(module, FittedVae)
        assert ("label_agreement" in effect.figures) == labelled
    with Image.open(directory / "samples.png") as image:
        assert image.size == (10 * 56, 8 * 56)


def test_other_data_than_the_model_was_trained_on_is_refused(directory, dataset, tmp_path):
    before = contents(directory)
    with pytest.raises(CannotEvaluate, match="not on this"):
        evaluate_checkpoint(directory, replace(dataset, digest="f" * 64), tmp_path)
    assert contents(directory) == before


def test_an_archive_that_does_not_match_the_manifest_is_refused(directory, dataset, tmp_path):
    archive = directory / read(directory).archives["float32"].file
    archive.write_bytes(archive.read_bytes() + b"x")
    before = contents(directory)
    with pytest.raises(CheckpointError, match="bytes"):
        evaluate_checkpoint(directory, dataset, tmp_path)
    archive.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        evaluate_checkpoint(directory, dataset, tmp_path)
    assert {name: before[name] for name in contents(directory)} == contents(directory)


def test_a_checkpoint_that_is_replaced_during_the_evaluation_keeps_its_new_manifest(
    directory, dataset, tmp_path, monkeypatch
):
    archives = {"float32": read(directory).archives["float32"].model_copy(update={"digest": "f" * 64})}
    replaced = read(directory).model_copy(update={"archives": archives}).file_content()

    def and_replaced(*arguments):
        quality = eval_protocol.measure_quality(*arguments)
        (directory / "manifest.json").write_bytes(replaced)
        return quality

    monkeypatch.setattr(evaluate, "measure_quality", and_replaced)
    with pytest.raises(CannotEvaluate, match="replaced"):
        evaluate_checkpoint(directory, dataset, tmp_path)
    assert (directory / "manifest.json").read_bytes() == replaced


def test_the_table_of_a_document_is_replaced_between_its_marks(directory, dataset, tmp_path):
    evaluate_checkpoint(directory, dataset, tmp_path)
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- quality: begin -->\nold\n<!-- quality: end -->\nafter\n")
    write_tables(document, directory.parent)
    lines = document.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- quality: begin -->"]
    assert lines[-2:] == ["<!-- quality: end -->", "after"]
    assert lines[2:4] == ["### Protocol `strokes-eval-2`", ""]
    assert lines[4].startswith("| figure ")
    assert any(line.startswith("| negative elbo ") for line in lines)
    assert "old" not in lines


def test_cards_and_table_are_written_again_from_the_manifests(directory, dataset, tmp_path):
    evaluate_checkpoint(directory, dataset, tmp_path)
    document = tmp_path / "README.md"
    document.write_text("<!-- quality: begin --><!-- quality: end -->")
    write_tables(document, directory.parent)
    texts = [path.read_bytes() for path in (document, directory / "card.md")]
    document.write_text("<!-- quality: begin -->old<!-- quality: end -->")
    (directory / "card.md").unlink()
    write_documents(DocumentConfig(models_dir=directory.parent, document=document))
    assert [path.read_bytes() for path in (document, directory / "card.md")] == texts


@pytest.mark.parametrize("content", [b"nothing\n", b"\xff"])
def test_a_document_without_marks_or_of_another_encoding_is_not_changed(directory, tmp_path, content):
    document = tmp_path / "README.md"
    document.write_bytes(content)
    with pytest.raises(CannotEvaluate, match=r"README\.md"):
        write_tables(document, directory.parent)
    assert document.read_bytes() == content

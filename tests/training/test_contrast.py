"""The contrast of generated images is chosen on training images, and only `generate` has it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import training.export
from tests.training.conftest import manifest_of
from training import contrast
from training.archive import EagerArchive
from training.contrast import CONTRASTS, adjust_contrast, contrast_distances
from training.data import to_unit_range
from training.evaluation.feature_extractor import FeatureExtractor
from training.export import export
from training.families import build_learner
from training.fast_layers import ToImages
from training.learner import DataShape, Learner, TrainingSet

SOFTNESS = 1.4
MODEL = cast(
    "Learner",
    SimpleNamespace(conditional=True, latent_dim=1, noise_dim=1, priors=("normal",), image_shape=(1, 28, 28)),
)


class Pooled:
    """Means of parts of the image, in place of the features of a classifier."""

    def features(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(to_unit_range(images), 7).flatten(1)


class Soft(nn.Module):
    """The image of each label, its logits divided by SOFTNESS."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(to_unit_range(images).logit(1e-3) / SOFTNESS)
        self.to_images = ToImages()

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.to_images(self.logits[labels])
        return images


EXTRACTOR = cast("FeatureExtractor", Pooled())


@pytest.fixture
def recalled(dataset) -> TrainingSet:
    """Images, each of a class of its own."""
    return dataset.train_images, torch.arange(len(dataset.train_images))


def test_the_contrast_that_gives_the_training_images_is_chosen_and_set(recalled):
    archive: Any = EagerArchive({"generate": Soft(recalled[0])})
    before = archive.generate(torch.zeros(192, 1), recalled[1])
    distances = contrast_distances(archive, MODEL, recalled, EXTRACTOR)
    assert tuple(distances) == CONTRASTS
    assert distances[SOFTNESS] < 0.01 * distances[1.0]
    assert torch.equal(archive.generate(torch.zeros(192, 1), recalled[1]), before)
    assert adjust_contrast(archive, MODEL, recalled, EXTRACTOR) == SOFTNESS
    made = archive.generate(torch.zeros(192, 1), recalled[1])
    assert torch.allclose(made, to_unit_range(recalled[0]).clamp(1e-3, 1 - 1e-3), atol=1e-5)


def test_without_a_classifier_of_the_images_the_contrast_stays(recalled):
    archive = EagerArchive({"generate": Soft(recalled[0])})
    smaller = recalled[0][:, :, ::2, ::2], recalled[1]
    assert adjust_contrast(archive, MODEL, recalled, None) == 1.0
    assert adjust_contrast(archive, MODEL, smaller, EXTRACTOR) == 1.0


@torch.no_grad()
@pytest.mark.parametrize("family", ["vae", "cvae", "autoencoder", "cgan"])
def test_an_exported_family_has_its_contrast_in_generate_only(tiny, dataset, monkeypatch, family):
    monkeypatch.setattr(training.export, "find_extractor", lambda *_: EXTRACTOR)
    monkeypatch.setattr(contrast, "contrast_distances", lambda *_: {1.0: 2.0, 1.5: 1.0})
    config = tiny(family)
    learner = build_learner(config, DataShape(), 1)
    export(config, learner, dataset, [{"epoch": 1, "loss": 1.0}])
    manifest = manifest_of(config)
    assert manifest.training.contrast == 1.5
    archive = torch.jit.load(config.models_dir / family / manifest.archives["float32"].file)
    assert manifest.latent_dim is not None
    inputs = [torch.randn(8, manifest.latent_dim), torch.arange(8)][: 1 + manifest.conditional]
    plain: Any = learner.archive((dataset.train_images, dataset.train_labels))
    expected = torch.sigmoid(1.5 * plain.generate(*inputs).logit())
    assert torch.allclose(archive.generate(*inputs), expected, atol=1e-4)
    if "decode" in manifest.capabilities:
        assert torch.allclose(archive.decode(*inputs), plain.decode(*inputs), atol=1e-4)


def test_a_family_that_chooses_none_has_a_contrast_of_1(gan_run):
    assert manifest_of(gan_run).training.contrast == 1

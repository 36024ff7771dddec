"""The ten committed digits, translated, under the digest of MNIST."""

import numpy as np
import pytest
import torch

from app.checkpoints.manifest import Manifest
from tests.api.reading import image
from tests.conftest import TEST_IMAGES
from tests.training.conftest import manifest_of
from training.data import Dataset
from training.evaluation.feature_extractor import FeatureExtractor, find_extractor
from training.evaluation.reference import Reference
from training.families.vae import VaeConfig
from training.mnist import MNIST_SHA256, files_digest


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Each digit at 25 places for training, and at nine of them for testing."""
    pictures = [image(content) for content in TEST_IMAGES]
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    moved = torch.from_numpy(np.stack([np.roll(picture, place, (0, 1)) for place in places for picture in pictures]))
    labels = torch.arange(10).repeat(len(places))
    near = torch.tensor([max(abs(y), abs(x)) < 2 for y, x in places for _ in pictures])
    images = moved[:, None]
    return Dataset("MNIST", files_digest(MNIST_SHA256), images, labels, images[near], labels[near])


@pytest.fixture(scope="session")
def extractor(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    """The shipped classifier."""
    found = find_extractor(digits, tmp_path_factory.mktemp("no runs"))
    assert found is not None
    return found


@pytest.fixture(scope="session")
def reference(digits: Dataset, extractor: FeatureExtractor) -> Reference:
    """The digits with the shipped classifier."""
    return Reference(digits, extractor)


@pytest.fixture(scope="session")
def strokes(dataset: Dataset) -> Reference:
    """Data without a classifier."""
    return Reference(dataset, None)


@pytest.fixture
def manifest(vae_run: VaeConfig) -> Manifest:
    """The manifest of a VAE with 16 latent dimensions and the prior N(0, I)."""
    update = {"capabilities": ("generate", "decode", "encode"), "priors": ("normal",), "noise_dim": 16, "sampling": ()}
    return manifest_of(vae_run).model_copy(update=update)

"""Nearest training images against an exhaustive search."""

import pytest

from training.evaluation import memorisation
from training.evaluation.memorisation import nearest


def test_distances_and_indices_are_those_of_an_exhaustive_search(dataset, monkeypatch):
    monkeypatch.setattr(memorisation, "ROWS", 5)
    monkeypatch.setattr(memorisation, "COLUMNS", 50)
    images, others = dataset.test_images[:12], dataset.train_images
    distances, places = nearest(images, others)
    for image, distance, place in zip(images, distances, places, strict=True):
        every = (others.double() - image.double()).flatten(1).norm(dim=1) / 255
        assert int(place) == int(every.argmin())
        assert float(distance) == pytest.approx(float(every.min()), rel=1e-5)

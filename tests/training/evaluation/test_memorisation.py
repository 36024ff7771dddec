"""Nearest training images, against a plain search."""

import pytest
import torch

from training.evaluation import memorisation
from training.evaluation.memorisation import nearest


def test_distances_and_places_are_those_of_a_plain_search(dataset, monkeypatch):
    monkeypatch.setattr(memorisation, "ROWS", 5)
    monkeypatch.setattr(memorisation, "COLUMNS", 50)
    images, others = dataset.test_images[:12], dataset.train_images
    distances, places = nearest(images, others)
    for image, distance, place in zip(images, distances, places, strict=True):
        every = (others.double() - image.double()).flatten(1).norm(dim=1) / 255
        assert int(place) == int(every.argmin())
        assert float(distance) == pytest.approx(float(every.min()), rel=1e-5)


def test_a_copy_is_at_no_distance_from_its_original(dataset):
    distances, places = nearest(dataset.train_images[40:60], dataset.train_images)
    assert distances.tolist() == [0.0] * 20
    assert places.tolist() == list(range(40, 60))


def test_black_and_white_are_as_far_apart_as_their_pixels_are_many():
    black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    distances, _ = nearest(black, black + 255)
    assert distances.item() == pytest.approx(28)

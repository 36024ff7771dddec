"""The families that classify: calibration against a known temperature, held-out images, and the archive."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.conftest import manifest_of
from training.families import build_learner, families
from training.families.classification import ClassificationLearner, fit_temperature
from training.families.lenet import LenetConfig, LenetLearner
from training.families.vgg import Vgg
from training.learner import DataShape
from training.trainer import train

LABELS = (torch.arange(16) % 10)[None]


def learner(family: str = "lenet", **config: Any) -> ClassificationLearner:
    torch.manual_seed(0)
    built = build_learner(families()[family].config(**config), DataShape(), 30)
    assert isinstance(built, ClassificationLearner)
    return built


def test_the_temperature_is_that_of_the_distribution_of_the_labels():
    source = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(20_000, 10, generator=source)
    for temperature in (0.5, 1.0, 2.5):
        labels = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=source)[:, 0]
        assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_of_images_that_are_all_right_is_bounded():
    assert 1 / 20 <= fit_temperature(10 * torch.eye(10), torch.arange(10)) < 0.5


def test_a_run_never_learns_from_the_images_that_set_the_temperature(tiny, dataset, monkeypatch):
    learned, step = [], LenetLearner.step

    def watched(self: LenetLearner, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        learned.append(images[0])
        return step(self, images, labels)

    monkeypatch.setattr(LenetLearner, "step", watched)
    config = tiny("lenet", train_images=40, held_out=0.25)
    train(config, dataset=dataset)
    seen = {image.numpy().tobytes() for image in torch.cat(learned)}
    assert seen <= {image.numpy().tobytes() for image in dataset.train_images[:30] / 255}
    assert not seen & {image.numpy().tobytes() for image in dataset.train_images[30:40] / 255}
    assert manifest_of(config).dataset.train_images == 30
    assert LenetConfig().learned_images(60_000) == 55_200


@pytest.mark.parametrize("family", ["lenet", "vgg"])
def test_the_archive_gives_the_calibrated_probabilities_of_the_average(dataset, images, family):
    model = learner(family, ema_decay=0.5)
    for _ in range(3):
        model.step(images[None, :16], dataset.train_labels[None, :16])
    before = copy.deepcopy(model.state_dict())
    archive: Any = model.archive((dataset.train_images, dataset.train_labels))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    calibrated = archive.networks["classify"]
    with torch.no_grad():
        probabilities = archive.classify(images[:8])
        logits = calibrated.network(images[:8])
    assert torch.allclose(probabilities, functional.softmax(logits / calibrated.temperature, dim=1))
    averages = dict(model.average.module.named_parameters())
    assert all(torch.equal(weight, averages[name]) for name, weight in calibrated.network.named_parameters())
    # No other temperature makes the held-out labels likelier.
    held_out, labels = images[-15:], dataset.train_labels[-15:]
    with torch.no_grad():
        logits = calibrated.network(held_out)

    def loss(factor: float) -> Tensor:
        return functional.cross_entropy(logits / (factor * calibrated.temperature), labels)

    bounded = calibrated.temperature > 19
    assert bounded or loss(1.0) <= min(loss(0.9), loss(1.1))


def test_a_step_reports_the_cross_entropy_of_the_distorted_batch(images):
    model = learner()
    before = copy.deepcopy(model)
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    losses = model.step(images[None, :16], LABELS)
    assert not torch.equal(seen[0], images[:16])
    with torch.no_grad():
        logits = before.network(seen[0])
    assert torch.allclose(losses["cross_entropy"], functional.cross_entropy(logits, LABELS[0]))
    assert float(losses["errors"]) == pytest.approx(float((logits.argmax(dim=1) != LABELS[0]).float().mean()))
    assert not any(loss.requires_grad for loss in losses.values())


def test_classifiers_learn_to_tell_strokes_apart(images, dataset):
    model = learner("vgg")
    losses = [float(model.step(images[None, :64], dataset.train_labels[None, :64])["cross_entropy"]) for _ in range(15)]
    assert losses[0] == pytest.approx(math.log(10), rel=0.3)
    assert losses[-1] < 0.8 * losses[0]


def test_the_features_of_a_vgg_have_half_the_resolution_at_each_stage():
    network = Vgg(10)
    shapes = [tuple(features.shape) for features in network.eval().features(torch.rand(2, 1, 28, 28))]
    assert shapes == [(2, 16, 28, 28), (2, 48, 14, 14), (2, 96, 7, 7)]
    assert sum(parameter.numel() for parameter in network.parameters()) <= 400_000

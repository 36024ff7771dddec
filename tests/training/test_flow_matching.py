"""Flow matching: the loss, the scaling of the network, the solver, and the archive."""

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from training.families.flow_matching import (
    FlowMatchingConfig,
    FlowMatchingLearner,
    Generate,
    VelocityNetwork,
    on_path,
    velocity_loss,
)
from training.learner import DataShape

SMALL = DataShape(classes=3, image=(1, 4, 8))
LABELS = torch.tensor([0, 1, 2, 1])


@torch.enable_grad()
def learner(images: Tensor, steps: int = 3, **config: Any) -> FlowMatchingLearner:
    """A small learner after a few steps."""
    torch.manual_seed(0)
    choices: dict[str, Any] = {"width": 16, "solver_steps": 3, "ema_decay": 0.5, "label_dropout": 0} | config
    model = FlowMatchingLearner(FlowMatchingConfig(**choices), DataShape(), 100)
    for _ in range(steps):
        model.step(images[None, :16], (torch.arange(16) % 10)[None])
    return model


def test_paths_go_from_noise_to_images_at_the_velocity_of_the_loss():
    noise, images = torch.randn(2, 4, 1, 4, 8, generator=torch.Generator().manual_seed(0)).double()
    times = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()
    points = on_path(noise, images, times)
    assert torch.equal(points[0], noise[0])
    assert torch.allclose(points[1], 0.75 * noise[1] + 0.25 * images[1])
    assert torch.equal(points[3], images[3])
    assert float(velocity_loss((on_path(noise, images, times + 0.5) - points) / 0.5, noise, images)) < 1e-28
    assert torch.allclose(velocity_loss(torch.zeros_like(noise), noise, images), (images - noise).square().mean())


@torch.no_grad()
def test_an_untrained_network_predicts_the_best_linear_velocity_of_data_of_unit_variance():
    torch.manual_seed(0)
    network = VelocityNetwork(SMALL, 8)
    nn.init.zeros_(network.to_velocity.bias)  # type: ignore[arg-type]
    noise, images = torch.randn(2, 50_000, 1, 4, 8)
    for time in (0.0, 0.3, 1.0):
        times = torch.full((50_000,), time)
        points = on_path(noise, images, times)
        made = network(points[:4], times[:4], LABELS) / points[:4]  # the same factor everywhere
        best = float((points * (images - noise)).mean() / points.square().mean())
        assert made.flatten().tolist() == pytest.approx([best] * made.numel(), abs=0.01)


class Line(nn.Module):
    """Straight lines to an image of one grey."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return (self.grey - x) / (1 - times[:, None, None, None])


class Turning(nn.Module):
    """A velocity that only depends on the time: 6 t (1 - t), whose integral from 0 to 1 is 1."""

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        t = times[:, None, None, None]
        return (6 * t * (1 - t)).expand_as(x)


class Labelled(nn.Module):
    """Straight lines to an image for each label, and to another one without a label."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0.2 * torch.randn(SMALL.classes + 1, 1, 4, 8, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return (self.images[labels] - x) / (1 - times[:, None, None, None])


def test_guidance_goes_away_from_the_image_without_a_label_and_keeps_the_contrast():
    latents = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    network: Any = Labelled()
    with_label, without = network.images[LABELS], network.images[-1]
    similarities = []
    for weight in (1.0, 1.5, 2.0):
        made = 2 * Generate(network, SMALL, 4, weight)(latents, LABELS) - 1
        assert torch.allclose(made.mean(dim=(1, 2, 3)), with_label.mean(dim=(1, 2, 3)), atol=1e-5)
        assert torch.allclose(made.std(dim=(1, 2, 3)), with_label.std(dim=(1, 2, 3)), atol=1e-5)
        similarities.append(((made - with_label) * (with_label - without)).sum(dim=(1, 2, 3)))
    assert similarities[0].abs().max() < 1e-4
    assert (similarities[0] < similarities[1]).all()
    assert (similarities[1] < similarities[2]).all()


def test_only_a_share_of_the_labels_reaches_the_network_in_training(images):
    model = learner(images, steps=0, label_dropout=0.5)
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    labels = torch.arange(16) % 10
    model.step(images[None, :16], labels[None])
    hidden = seen[0] == DataShape().classes
    assert 0 < int(hidden.sum()) < 16
    assert torch.equal(seen[0][~hidden], labels[~hidden])


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_the_solver_follows_straight_lines_exactly_and_keeps_images_in_range(steps):
    latents = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    network: Any = Line(0.5)
    assert torch.allclose(Generate(network, SMALL, steps, 1.0)(latents, LABELS), torch.tensor(0.75), atol=1e-5)
    network = Line(3.0)
    assert torch.equal(Generate(network, SMALL, steps, 1.0)(latents, LABELS), torch.ones(4, 1, 4, 8))


def test_the_solver_is_of_second_order():
    latents, network = torch.full((4, 32), -1.0), cast(Any, Turning())
    errors = [float((Generate(network, SMALL, steps, 1.0)(latents, LABELS) - 0.5).abs().max()) for steps in (20, 40)]
    assert errors[1] < errors[0] / 3


def test_a_step_reports_the_loss_of_its_batch_and_lowers_it(images):
    model = learner(images)
    before = copy.deepcopy(model)
    batch, labels = images[:16], torch.arange(16) % 10
    torch.manual_seed(7)
    reported = model.step(batch[None], labels[None])["velocity_error"]
    torch.manual_seed(7)
    pixels = 2 * batch - 1
    noise = torch.randn_like(pixels)
    times = (torch.arange(16) + torch.rand(16)) / 16
    with torch.no_grad():
        points = on_path(noise, pixels, times)
        old, new = (velocity_loss(each.network(points, times, labels), noise, pixels) for each in (before, model))
    assert torch.allclose(reported, old)
    assert new < old
    assert not reported.requires_grad


@torch.no_grad()
def test_the_archive_has_the_average_and_takes_labels(images, training_set):
    model = learner(images)
    archive: Any = model.archive(training_set)
    latents, labels = torch.randn(4, 784), torch.tensor([0, 1, 2, 3])
    made = archive.generate(latents, labels)
    network: Any = model.average.module
    assert torch.equal(made, Generate(network, DataShape(), 3, model.config.guidance)(latents, labels))
    assert not torch.equal(made, Generate(model.network, DataShape(), 3, 1.5)(latents, labels))
    assert not torch.equal(made, archive.generate(latents, labels.flip(0)))

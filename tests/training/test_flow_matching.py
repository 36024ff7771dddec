"""Flow matching: the loss, the scaling of the network, the solver, the rejection, and the phases of training."""

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import lively
from training.families.flow_matching import (
    CODE_DIM,
    Flow,
    FlowMatchingConfig,
    FlowMatchingLearner,
    VelocityNetwork,
    adams_bashforth,
    on_path,
    velocity_loss,
)
from training.families.variational import negative_elbo
from training.learner import DataShape

LABELS = torch.tensor([0, 1, 2, 1])
BATCH_LABELS = torch.arange(16) % 10


@torch.enable_grad()
def learner(images: Tensor, steps: int = 3, **config: Any) -> FlowMatchingLearner:
    """A learner with a small flow after a few steps, of which the autoencoder learns in the first two."""
    torch.manual_seed(0)
    choices: dict[str, Any] = {"width": 16, "blocks": 1, "solver_steps": 3, "ema_decay": 0.5}
    choices |= {"epochs": 10, "autoencoder_epochs": 2}
    model = FlowMatchingLearner(FlowMatchingConfig(**(choices | config)), DataShape(), 10)
    for _ in range(steps):
        model.step(images[None, :16], BATCH_LABELS[None])
    return model


def seeded_step(model: FlowMatchingLearner, batch: Tensor) -> dict[str, Tensor]:
    """The losses of one step. The random state afterwards is that from which the step drew its numbers."""
    torch.manual_seed(7)
    losses = model.step(batch[None], BATCH_LABELS[None])
    torch.manual_seed(7)
    return losses


def noise_of(rows: int) -> Tensor:
    """Noise `(rows, CODE_DIM + 1)` of the prior."""
    return torch.randn(rows, CODE_DIM + 1, generator=torch.Generator().manual_seed(0))


def test_paths_go_from_noise_to_codes_at_the_velocity_of_the_loss():
    noise, codes = torch.randn(2, 4, CODE_DIM, generator=torch.Generator().manual_seed(0)).double()
    times = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()[:, None]
    points = on_path(noise, codes, times)
    assert torch.equal(points[0], noise[0])
    assert torch.allclose(points[1], 0.75 * noise[1] + 0.25 * codes[1])
    assert torch.equal(points[3], codes[3])
    assert float(velocity_loss((on_path(noise, codes, times + 0.5) - points) / 0.5, noise, codes)) < 1e-28
    assert torch.allclose(velocity_loss(torch.zeros_like(noise), noise, codes), (codes - noise).square().mean())


@torch.no_grad()
def test_an_untrained_network_predicts_the_best_linear_velocity_of_codes_of_unit_variance():
    torch.manual_seed(0)
    network = VelocityNetwork(3, 8, 1)
    noise, codes = torch.randn(2, 50_000, CODE_DIM)
    for time in (0.0, 0.3, 1.0):
        times = torch.full((50_000, 1), time)
        points = on_path(noise, codes, times)
        made = network(points[:4], times[:4], LABELS) / points[:4]  # the same factor everywhere
        best = float((points * (codes - noise)).mean() / points.square().mean())
        assert made.flatten().tolist() == pytest.approx([best] * made.numel(), abs=0.01)


class Turning(nn.Module):
    """A slope that only depends on the angle: its cosine, whose integral over a quarter of a turn is 1."""

    def remainder(self, y: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return torch.cos(torch.atan2(times, 1 - times)).expand_as(y)


class Still(nn.Module):
    """No slope: codes are the noise."""

    def remainder(self, y: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros_like(y)


def flow(network: nn.Module, steps: int, least_probability: float = 0.0) -> Flow:
    """A flow whose classifier finds a code to be of class 0 as its first number is large, else of class 1 or 2."""
    classifier = nn.Linear(CODE_DIM, 3)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    classifier.weight.data[0, 0] = 2.0
    return Flow(cast(VelocityNetwork, network), classifier, steps, least_probability)


@torch.no_grad()
def test_the_solver_follows_the_velocities_of_the_network():
    torch.manual_seed(0)
    network = lively(VelocityNetwork(3, 8, 1)).double()
    nn.init.normal_(network.to_velocity.weight)
    noise, steps = noise_of(4).double(), 400
    x = noise[:, :-1]
    for step in range(steps):  # the midpoint method
        first, middle = (torch.full((4, 1), (step + share) / steps).double() for share in (0.0, 0.5))
        half = x + network(x, first, LABELS) / (2 * steps)
        x = x + network(half, middle, LABELS) / steps
    assert not torch.allclose(x, noise[:, :-1], atol=0.3)
    assert torch.allclose(flow(network, 200).double()(noise, LABELS), x, atol=0.01)


def test_the_solver_is_of_third_order():
    noise = torch.zeros(4, CODE_DIM + 1).double()
    errors = [float((flow(Turning(), steps).double()(noise, LABELS) - 1).abs().max()) for steps in (20, 40)]
    assert errors[1] < errors[0] / 6


def test_the_weights_of_equal_steps_are_those_of_the_textbook():
    weights = adams_bashforth([0.0, 2.0, 4.0, 6.0, 8.0], 3)
    textbook = [[1.0], [3 / 2, -1 / 2], [23 / 12, -4 / 3, 5 / 12], [23 / 12, -4 / 3, 5 / 12]]
    assert [[each / 2 for each in row] for row in weights] == [pytest.approx(row) for row in textbook]


@torch.no_grad()
def test_a_code_that_is_improbable_for_its_label_is_replaced_by_that_of_the_negated_noise_if_it_is_more_probable():
    noise = torch.zeros(4, CODE_DIM + 1)
    noise[:, 0] = torch.tensor([2.0, -2.0, 0.3, -0.3])
    noise[:, 1] = 1.0
    labels = torch.zeros(4, dtype=torch.long)  # of probability 0.96, 0.01, 0.48 and 0.22, by hand
    first = noise[:, :-1]
    assert torch.equal(flow(Still(), 3, 0.0)(noise, labels), first)
    replaced = torch.tensor([False, True, False, True])[:, None]
    for least in (0.4, 0.6):  # where both codes are improbable, the more probable one is taken
        assert torch.equal(flow(Still(), 3, least)(noise, labels), torch.where(replaced, -first, first))


def test_the_autoencoder_learns_first_and_reports_its_losses(images):
    model = learner(images, steps=1)
    before, batch = copy.deepcopy(model), images[:16]
    reported = seeded_step(model, batch)
    with torch.no_grad():
        codes, mean, log_variance = before.code_model.codes(batch)
        elbo = negative_elbo(before.code_model.vae.decoder(codes), batch, mean, log_variance, model.config.beta)
        likelihoods = before.code_model.classifier(codes).log_softmax(dim=1)[torch.arange(16), BATCH_LABELS]
    assert torch.allclose(reported["negative_elbo"], elbo)
    assert torch.allclose(reported["cross_entropy"], -likelihoods.mean())
    assert not any(loss.requires_grad for loss in reported.values())
    assert changed(before.code_model, model.code_model)
    assert not changed(before.network, model.network)


def test_the_flow_learns_afterwards_and_lowers_its_loss(images):
    model = learner(images)
    before, batch = copy.deepcopy(model), images[:16]
    reported = seeded_step(model, batch)
    with torch.no_grad():
        codes, _, _ = model.averaged.codes(batch)
        noise = torch.randn_like(codes)
        times = (torch.arange(16)[:, None] + torch.rand(16, 1)) / 16
        points = on_path(noise, codes, times)
        old, new = (velocity_loss(each.network(points, times, BATCH_LABELS), noise, codes) for each in (before, model))
    assert list(reported) == ["velocity_error"]
    assert torch.allclose(reported["velocity_error"], old)
    assert new < old
    assert not changed(before.code_model, model.code_model)
    assert not changed(before.code_average, model.code_average)


def changed(before: nn.Module, after: nn.Module) -> bool:
    """Whether any weight differs."""
    return any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True))


@torch.no_grad()
def test_the_archive_has_the_averages_and_a_prior_that_takes_labels(images, training_set):
    model = learner(images, steps=6)
    archive: Any = model.archive(training_set)
    noise, labels = noise_of(4), torch.tensor([0, 1, 2, 3])
    codes = archive.prior(noise, labels)
    averaged, network = model.averaged, cast(VelocityNetwork, model.network_average.module)
    assert torch.equal(codes, Flow(network, averaged.classifier, 3, 0.9)(noise, labels))
    assert not torch.equal(codes, Flow(model.network, averaged.classifier, 3, 0.9)(noise, labels))
    assert not torch.equal(codes, archive.prior(noise, labels.flip(0)))
    assert torch.equal(archive.generate(codes), torch.sigmoid(averaged.vae.decoder(codes)))
    assert torch.equal(archive.embed(images[:4]), averaged.vae.encoder(images[:4])[0])

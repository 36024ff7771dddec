"""The adversarial families: losses against formulas, the training step, batch statistics and the archive."""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import lively
from training.families import batch_norm
from training.families.adversarial import discriminator_loss, generator_loss, gradient_penalty
from training.families.batch_norm import estimate_batch_norm
from training.families.cgan import CganConfig, CganLearner
from training.families.gan import LATENT_DIM, ConvToOneChannel, GanConfig, GanLearner, Generator
from training.learner import DataShape

LABELS = torch.arange(16) % 10
NO_IMAGES = (torch.empty(0, 1, 28, 28, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))


def learner(total_steps: int = 1000, **config: Any) -> GanLearner:
    torch.manual_seed(0)
    return GanLearner(GanConfig(channels=16, **config), DataShape(), total_steps)


def cgan(**config: Any) -> CganLearner:
    torch.manual_seed(0)
    return CganLearner(CganConfig(channels=16, **config), DataShape(), 1000)


def clones(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def batches(images: Tensor, steps: int, size: int = 4) -> Tensor:
    """`(steps, size, 1, 28, 28)`, no row twice."""
    return images[: steps * size].view(steps, size, 1, 28, 28)


def labels(steps: int, size: int = 4) -> Tensor:
    """Labels, which a GAN ignores."""
    return torch.zeros(steps, size, dtype=torch.long)


def test_losses_are_the_formulas_of_the_paper():
    real, fake = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).double()
    d_real, d_fake = (1 / (1 + torch.exp(-logits)) for logits in (real, fake))
    assert torch.allclose(discriminator_loss(real, fake), (-d_real.log() - (1 - d_fake).log()).mean())
    assert torch.allclose(generator_loss(fake), -d_fake.log().mean())
    assert discriminator_loss(real, fake).shape == generator_loss(fake).shape == ()


def test_the_matrix_product_of_training_is_the_convolution():
    torch.manual_seed(0)
    layer = ConvToOneChannel(6, 1, 7, padding=3).double()
    images = torch.randn(2, 6, 9, 8, dtype=torch.double, requires_grad=True)
    weights = torch.randn(2, 1, 9, 8)

    def gradients(output: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * weights).sum(), [images, *layer.parameters()])

    trained, served = layer.train()(images), layer.eval()(images)
    assert torch.allclose(trained, served, atol=1e-6)
    for ours, theirs in zip(gradients(trained), gradients(served), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("half", ["discriminator", "generator"])
def test_each_half_of_a_step_moves_only_its_network_and_lowers_its_loss(images, half):
    # Without dropout, on the images and the latents of the step.
    model = learner(shared_fakes=True, generator_learning_rate=1e-3, discriminator_learning_rate=1e-3)
    model.discriminator.eval()
    real = batches(images, 1, size=16)
    for _ in range(3):
        model.step(real, labels(1, size=16))
    state, before, moved = torch.get_rng_state(), copy.deepcopy(model), []
    for name in ("discriminator", "generator"):
        optimizer = getattr(model, f"{name}_optimizer")
        optimizer.register_step_post_hook(lambda *_, name=name: moved.append((name, copy.deepcopy(model))))
    losses = model.step(real, labels(1, size=16))
    assert [name for name, _ in moved] == ["discriminator", "generator"]
    (_, first), (_, second) = moved
    assert equal(clones(first.generator), clones(before.generator))
    assert equal(clones(second.discriminator), clones(first.discriminator))
    torch.set_rng_state(state)
    with torch.no_grad():
        latents = torch.randn(16, 100)

        def loss(generator: nn.Module, discriminator: nn.Module) -> Tensor:
            fake = discriminator(torch.sigmoid(generator(latents)))
            return generator_loss(fake) if half == "generator" else discriminator_loss(discriminator(real[0]), fake)

        if half == "discriminator":
            old, new = loss(before.generator, before.discriminator), loss(before.generator, first.discriminator)
        else:
            old, new = loss(before.generator, first.discriminator), loss(second.generator, first.discriminator)
    assert torch.allclose(losses[half], old, atol=1e-4)
    assert new < old
    assert not any(value.requires_grad for value in losses.values())


def test_both_learning_rates_are_constant_for_half_of_the_run_and_then_fall_to_zero(images):
    model = learner(total_steps=4, generator_learning_rate=0.01)
    rates = []
    for _ in range(4):
        rates.append(model.generator_optimizer.param_groups[0]["lr"])
        model.step(batches(images, 1), labels(1))
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005])
    assert model.generator_optimizer.param_groups[0]["lr"] == 0
    assert model.discriminator_optimizer.param_groups[0]["lr"] == 0


def test_the_gradient_penalty_is_the_mean_squared_norm_of_the_logits_gradient():
    weight = torch.randn(784, generator=torch.Generator().manual_seed(0))

    def discriminate(pixels: Tensor) -> Tensor:
        return pixels.flatten(1).square() @ weight / 2

    pixels = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    penalty = gradient_penalty(discriminate, pixels)
    expected = (weight * pixels.flatten(1)).square().sum(dim=1).mean()
    assert torch.allclose(penalty, expected, rtol=1e-5)
    assert not pixels.requires_grad


def test_estimated_statistics_are_those_of_the_generators_own_activations():
    generator = lively(Generator(LATENT_DIM, 128, batch_norm=True))
    source = torch.Generator().manual_seed(4)
    estimate_batch_norm(generator, [(torch.randn(32, 100, generator=source),) for _ in range(2)])
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        features = [generator.dense(torch.randn(32, 100, generator=source)).view(32, 128, 49) for _ in range(2)]
    mean = torch.stack([batch.mean(dim=(0, 2)) for batch in features]).mean(dim=0)
    variance = torch.stack([batch.var(dim=(0, 2)) for batch in features]).mean(dim=0)
    norm: Any = generator.dense_norm
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)
    assert torch.allclose(norm.running_var, variance, rtol=1e-4)
    assert not generator.training


def test_the_archive_is_the_average_with_its_own_batch_statistics_and_leaves_the_learner_as_it_was(images):
    model = learner(ema_decay=0.5)
    for _ in range(2):
        model.step(batches(images, 1), labels(1))
    before = copy.deepcopy(model.training_state()["modules"])
    archive: Any = model.archive(NO_IMAGES)
    assert equal(before.values(), model.training_state()["modules"].values())
    # In training mode a network uses the statistics of its batch: here the batch that the archive's are taken from.
    latents = torch.randn(batch_norm.ROWS, 100, generator=torch.Generator().manual_seed(batch_norm.SEED))
    with torch.no_grad():
        expected = torch.sigmoid(copy.deepcopy(model.average.module).train()(latents))
        assert torch.allclose(archive.generate(latents), expected, atol=1e-4)
        last = torch.sigmoid(copy.deepcopy(model.generator).train()(latents))
        assert not torch.allclose(archive.generate(latents), last, atol=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_the_steps_of_both_networks_share_a_batch_of_fakes_or_each_takes_fresh_ones(images, shared):
    model, seen = learner(shared_fakes=shared, discriminator_steps=2), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.step(batches(images, 2), labels(2))
    *both, last = seen
    fakes = [*(rows[4:] for rows in both), last]
    assert [len(rows) for rows in fakes] == [4, 4, 4]
    assert all(torch.equal(rows, last) == shared for rows in fakes[:2])
    assert torch.equal(fakes[0], fakes[1]) == shared


def test_the_discriminator_sees_fakes_with_the_labels_they_were_made_for(images):
    model, seen = cgan(), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].clone()))
    model.step(images[None, :16], LABELS[None])
    both, penalised, last = seen
    assert torch.equal(both, torch.cat([LABELS, LABELS]))
    assert torch.equal(penalised, LABELS[:4])
    assert torch.equal(last, LABELS)

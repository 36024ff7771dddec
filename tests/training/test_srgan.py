"""The super-resolution GAN: its losses against formulas, the steps of its three networks, and the archive."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from training.families.adversarial import generator_loss
from training.families.srgan import SrganConfig, SrganLearner, Upscaler, perceptual_loss, reduced
from training.families.variational import reconstruction_error
from training.learner import DataShape

LABELS = (torch.arange(16) % 10)[None]
NETWORKS = ("classifier", "discriminator", "upscaler")


def learner(**config: Any) -> SrganLearner:
    torch.manual_seed(0)
    return SrganLearner(SrganConfig(**config), DataShape(), 30)


def test_a_reduced_image_has_the_means_of_squares_in_8_bits():
    images = torch.randint(256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255
    small = reduced(images, 4) * 255
    assert small.shape == (3, 1, 7, 7)
    assert torch.allclose(small, small.round(), atol=1e-4)
    assert float((small[1, 0, 2, 3] / 255 - images[1, 0, 8:12, 12:16].mean()).abs()) <= 0.5 / 255 + 1e-6


def test_the_perceptual_loss_sums_the_mean_squared_differences_of_layers():
    source = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.randn(2, 3, side, side, generator=source) for side in (8, 4)] for _ in range(2))
    expected = sum((one - other).square().mean() for one, other in zip(ours, theirs, strict=True))
    assert torch.allclose(perceptual_loss(ours, theirs), torch.as_tensor(expected))


@pytest.mark.parametrize(("factor", "side"), [(4, 7), (2, 14)])
def test_an_upscaler_multiplies_both_sides_by_its_factor(factor, side):
    assert Upscaler(factor)(torch.rand(2, 1, side, side)).shape == (2, 1, 28, 28)
    assert learner(factor=factor).input_shape == (1, side, side)


def test_each_network_learns_in_its_own_step_only(images):
    model, moved = learner(), []
    for name in NETWORKS:
        optimizer = getattr(model, f"{name}_optimizer")
        optimizer.register_step_post_hook(lambda *_, name=name: moved.append((name, copy.deepcopy(model))))
    before = copy.deepcopy(model)
    model.step(images[None, :16], LABELS)
    assert [name for name, _ in moved] == list(NETWORKS)
    for mover, after in moved:
        for name in NETWORKS:
            pairs = zip(getattr(before, name).parameters(), getattr(after, name).parameters(), strict=True)
            assert all(torch.equal(old, new) for old, new in pairs) == (name != mover)
        before = after
    assert all(parameter.requires_grad for name in NETWORKS for parameter in getattr(model, name).parameters())


def test_judging_upscaled_images_does_not_change_the_statistics_of_the_classifier(images):
    model, seen = learner(), []
    model.classifier_optimizer.register_step_post_hook(lambda *_: seen.append(copy.deepcopy(model.classifier)))
    model.step(images[None, :16], LABELS)
    assert all(torch.equal(old, new) for old, new in zip(seen[0].buffers(), model.classifier.buffers(), strict=True))
    assert model.classifier.training


def test_the_upscaler_learns_from_the_weighted_sum_of_its_three_losses(images):
    model = learner(perceptual_weight=3.0, adversarial_weight=2.0)
    model.discriminator.eval()  # without dropout
    gradients: list[Tensor | None] = []
    twins: list[SrganLearner] = []

    def before_step(*_: object) -> None:
        gradients.extend(parameter.grad for parameter in model.upscaler.parameters())
        twins.append(copy.deepcopy(model))

    model.upscaler_optimizer.register_step_pre_hook(before_step)
    losses = model.step(images[None, :16], LABELS)
    twin, real = twins[0], images[:16]
    twin.zero_grad()
    twin.classifier.eval()
    logits = twin.upscaler(reduced(real, 4))
    upscaled = torch.sigmoid(logits)
    pixels = reconstruction_error(logits, real).mean()
    perceptual = perceptual_loss(twin.classifier.features(upscaled), twin.classifier.features(real))
    generator = generator_loss(twin.discriminator(upscaled))
    for name, loss in {"pixels": pixels, "perceptual": perceptual, "generator": generator}.items():
        assert torch.allclose(losses[name], loss, rtol=1e-4)
    (pixels + 3 * perceptual + 2 * generator).backward()
    for ours, parameter in zip(gradients, twin.upscaler.parameters(), strict=True):
        assert ours is not None
        assert parameter.grad is not None
        assert torch.allclose(ours, parameter.grad, atol=1e-3 * float(parameter.grad.abs().max()))


def test_it_learns_to_upscale_strokes(images):
    model = learner()
    errors = [float(model.step(images[None, :16], LABELS)["pixels"]) for _ in range(15)]
    assert errors[-1] < 0.5 * errors[0]


def test_the_archive_is_the_average(images):
    model = learner(ema_decay=0.9)
    for _ in range(3):
        model.step(images[None, :16], LABELS)
    archive: Any = model.archive((torch.empty(0), torch.empty(0)))
    small = reduced(images[:4], 4)
    with torch.no_grad():
        made = archive.upscale(small)
        assert torch.equal(made, torch.sigmoid(model.average.module(small)))
        assert 0 <= made.min() <= made.max() <= 1
        assert not torch.allclose(made, torch.sigmoid(model.upscaler(small)), atol=1e-5)

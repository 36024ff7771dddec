"""The GAN: its networks, its game, the fold of batch normalisation and its archive."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import GanConfig
from training.families.adversarial import discriminator_loss, generator_loss, gradient_penalty
from training.families.discriminators import Discriminator
from training.families.gan import (
    GanLearner,
    Generator,
    estimate_batch_norm,
    fold_batch_norm,
    statistics_latents,
)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def learner(**config: Any) -> GanLearner:
    torch.manual_seed(0)
    return GanLearner(GanConfig(**config), total_steps=1000)


def clones(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def equal(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def batches(images: Tensor, steps: int, size: int = 4) -> Tensor:
    """`(steps, size, 1, 28, 28)`, no row twice."""
    return images[: steps * size].view(steps, size, 1, 28, 28)


def labels(steps: int, size: int = 4) -> Tensor:
    """Classes of the images, which a GAN without labels ignores."""
    return torch.zeros(steps, size, dtype=torch.long)


@pytest.fixture
def lively():
    """A generator with batch normalisation whose statistics and scales are far from their start."""
    torch.manual_seed(1)
    generator = Generator(batch_norm=True)
    for norm in (generator.dense_norm, generator.up1_norm, generator.up2_norm):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias, 0, 0.3)
        nn.init.normal_(norm.running_mean, 0, 0.5)
        nn.init.uniform_(norm.running_var, 0.3, 3)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias") and "norm" not in name:
            nn.init.normal_(parameter, 0, 0.1)
    return generator.eval()


# --- networks


def test_the_discriminator_and_the_shipped_generator_have_the_published_numbers_of_parameters():
    assert parameters(Discriminator()) == 40_705
    assert parameters(Generator()) == 1_164_289
    assert parameters(fold_batch_norm(Generator(batch_norm=True))) == 1_164_289


def test_generator_gives_logits_of_one_image_a_latent(lively):
    with torch.no_grad():
        logits = lively(100 * torch.randn(3, 100))
    assert logits.shape == (3, 1, 28, 28)
    assert logits.min() < 0
    assert logits.max() > 1


def test_discriminator_gives_one_logit_an_image(images):
    assert Discriminator()(images[:5]).shape == (5,)
    assert Discriminator()(images[:1]).shape == (1,)


def test_discriminator_drops_features_in_training_only(images):
    torch.manual_seed(0)
    discriminator = Discriminator()
    with torch.no_grad():
        assert not torch.equal(discriminator(images[:5]), discriminator(images[:5]))
        discriminator.eval()
        assert torch.equal(discriminator(images[:5]), discriminator(images[:5]))


@pytest.mark.parametrize("network", [lambda: Generator(batch_norm=True), Discriminator])
def test_weights_start_glorot_uniform_and_biases_at_zero(network):
    torch.manual_seed(0)
    layers = [m for m in network().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert layers
    for layer in layers:
        taps = math.prod(layer.kernel_size) if not isinstance(layer, nn.Linear) else 1
        outs, ins = layer.weight.shape[:2]
        bound = math.sqrt(6 / ((ins + outs) * taps))
        assert layer.weight.abs().max() <= bound
        assert layer.weight.abs().max() > 0.95 * bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()


# --- losses


def test_losses_are_the_formulas_of_the_paper():
    real, fake = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).double()
    d_real, d_fake = (1 / (1 + torch.exp(-logits)) for logits in (real, fake))
    assert torch.allclose(discriminator_loss(real, fake), (-d_real.log() - (1 - d_fake).log()).mean())
    assert torch.allclose(generator_loss(fake), -d_fake.log().mean())
    assert discriminator_loss(real, fake).shape == generator_loss(fake).shape == ()


def test_a_discriminator_that_tosses_a_coin_loses_2_log_2():
    even = torch.zeros(8)
    assert float(discriminator_loss(even, even)) == pytest.approx(2 * math.log(2))
    assert float(generator_loss(even)) == pytest.approx(math.log(2))


def test_losses_stay_finite_and_keep_their_slope_where_the_sigmoid_is_flat():
    sure = torch.full((4,), 200.0)
    assert float(discriminator_loss(sure, -sure)) == 0
    assert float(discriminator_loss(-sure, sure)) == pytest.approx(400)
    fake = (-sure).requires_grad_()
    (slope,) = torch.autograd.grad(generator_loss(fake), fake)
    assert torch.allclose(slope, torch.full((4,), -0.25)), "a generator that loses everything still learns"


# --- the step


def test_each_half_moves_one_player_and_leaves_the_other_still(images):
    model = learner(discriminator_steps=3)
    seen = []

    def before_discriminator(*_):
        seen.append("discriminator")
        assert gradients(model.generator) == []
        assert equal(clones(model.generator), generator_start)

    def before_generator(*_):
        seen.append("generator")
        assert equal(clones(model.generator), generator_start), "the generator waited for its half"
        assert len(gradients(model.generator)) == len(generator_start)
        assert not equal(clones(model.discriminator), discriminator_start)
        assert equal(clones(model.discriminator), discriminator_half)
        assert equal(gradients(model.discriminator), gradients_half), "it gathered no gradient"

    def after_discriminator(*_):
        discriminator_half[:] = clones(model.discriminator)
        gradients_half[:] = gradients(model.discriminator)

    generator_start, discriminator_start = clones(model.generator), clones(model.discriminator)
    discriminator_half: list[Tensor] = []
    gradients_half: list[Tensor] = []
    model.discriminator_optimizer.register_step_pre_hook(before_discriminator)
    model.discriminator_optimizer.register_step_post_hook(after_discriminator)
    model.generator_optimizer.register_step_pre_hook(before_generator)
    model.step(batches(images, 3), labels(3))

    assert seen == ["discriminator"] * 3 + ["generator"]
    assert equal(clones(model.discriminator), discriminator_half)
    assert not equal(clones(model.generator), generator_start)
    assert all(parameter.requires_grad for parameter in model.discriminator.parameters()), "ready for the next step"


def test_each_discriminator_step_sees_real_images_of_its_own(images):
    model, seen = learner(discriminator_steps=3), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.step(batches(images, 3), labels(3))
    real, fake = zip(*(pixels.chunk(2) for pixels in seen[:3]), strict=True)
    assert torch.equal(torch.stack(real), batches(images, 3))
    assert all(pixels.min() >= 0 and pixels.max() <= 1 for pixels in fake)
    assert all(torch.equal(pixels, seen[3]) for pixels in fake), "all steps share one batch of fakes"


def test_each_half_moves_its_player_towards_its_own_end(images):
    # Judged without dropout, on the images and latents of the step.
    model = learner(discriminator_steps=1, generator_learning_rate=1e-3)
    model.discriminator.eval()
    real = batches(images, 1, size=16)
    for _ in range(3):
        losses = model.step(real, labels(1, size=16))
    state = torch.get_rng_state()
    before = copy.deepcopy(model)
    losses = model.step(real, labels(1, size=16))
    torch.set_rng_state(state)
    with torch.no_grad():
        latents = torch.randn(16, 100)
        fake = torch.sigmoid(before.generator(latents))
        old = discriminator_loss(before.discriminator(real[0]), before.discriminator(fake))
        new = discriminator_loss(model.discriminator(real[0]), model.discriminator(fake))
        assert torch.allclose(losses["discriminator"], old, atol=1e-4)
        assert new < old
        old = generator_loss(model.discriminator(torch.sigmoid(before.generator(latents))))
        new = generator_loss(model.discriminator(torch.sigmoid(model.generator(latents))))
        assert torch.allclose(losses["generator"], old, atol=1e-4)
        assert new < old
    assert not any(loss.requires_grad for loss in losses.values())


def test_both_learning_rates_stay_for_half_of_the_run_and_then_fall_to_zero(images):
    torch.manual_seed(0)
    model = GanLearner(GanConfig(discriminator_steps=1, generator_learning_rate=0.01), total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(model.generator_optimizer.param_groups[0]["lr"])
        model.step(batches(images, 1), labels(1))
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005])
    assert model.generator_optimizer.param_groups[0]["lr"] == 0
    assert model.discriminator_optimizer.param_groups[0]["lr"] == 0


def test_the_gradient_penalty_is_the_mean_squared_norm_of_the_logits_gradient():
    weight = torch.randn(784, generator=torch.Generator().manual_seed(0))

    def judge(pixels: Tensor) -> Tensor:
        return pixels.flatten(1).square() @ weight / 2

    pixels = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    penalty = gradient_penalty(judge, pixels)
    expected = (weight * pixels.flatten(1)).square().sum(dim=1).mean()
    assert torch.allclose(penalty, expected, rtol=1e-5)
    assert not pixels.requires_grad


def test_a_gradient_penalty_flattens_the_discriminator_at_real_images(images):
    def slope(gamma: float) -> float:
        torch.manual_seed(0)
        config = GanConfig(discriminator="deep", discriminator_steps=1, gradient_penalty=gamma)
        model = GanLearner(config, total_steps=1000)
        for _ in range(8):
            model.step(batches(images, 1, size=16), labels(1, size=16))
        return float(gradient_penalty(model.discriminator, images[:16]).detach())

    assert slope(10.0) < 0.5 * slope(0.0)


def test_the_average_moves_towards_the_generator_as_its_warm_up_says(images):
    model = learner(discriminator_steps=1, ema_decay=0.9)
    model.step(batches(images, 1), labels(1))
    first = clones(model.generator)
    model.step(batches(images, 1), labels(1))
    second = clones(model.generator)
    assert not equal(first, second)
    for average, one, two in zip(model.average.module.parameters(), first, second, strict=True):
        assert torch.allclose(average, 2 / 11 * one + 9 / 11 * two, atol=1e-7)


# --- what ships


def test_folding_computes_the_same_function_without_batch_normalisation(lively):
    folded, latents = fold_batch_norm(lively), torch.randn(16, 100)
    with torch.no_grad():
        assert torch.allclose(folded(latents), lively(latents), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not folded.training


def test_folding_leaves_its_input_untouched(lively):
    lively.train()
    before = copy.deepcopy(lively.state_dict())
    fold_batch_norm(lively)
    after = lively.state_dict()
    assert before.keys() == after.keys()
    assert equal(before.values(), after.values())
    assert lively.training


def test_folding_a_generator_without_batch_normalisation_copies_it():
    torch.manual_seed(0)
    plain = Generator(batch_norm=False)
    folded = fold_batch_norm(plain)
    assert equal(clones(folded), clones(plain))
    assert next(folded.parameters()).data_ptr() != next(plain.parameters()).data_ptr()


def test_estimated_statistics_are_those_of_the_generators_own_activations(lively):
    source = torch.Generator().manual_seed(4)
    estimate_batch_norm(lively, [(torch.randn(256, 100, generator=source),) for _ in range(2)])
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        features = [lively.dense(torch.randn(256, 100, generator=source)).view(256, 128, 49) for _ in range(2)]
    mean = torch.stack([batch.mean(dim=(0, 2)) for batch in features]).mean(dim=0)
    variance = torch.stack([batch.var(dim=(0, 2)) for batch in features]).mean(dim=0)
    assert torch.allclose(lively.dense_norm.running_mean, mean, atol=1e-5)
    assert torch.allclose(lively.dense_norm.running_var, variance, rtol=1e-4)
    assert not lively.training


@pytest.mark.usefixtures("quick_gan")
def test_estimating_statistics_moves_neither_the_weights_nor_the_global_random_state(lively):
    before, state = clones(lively), torch.get_rng_state()
    estimate_batch_norm(lively, ((latents,) for latents in statistics_latents(lively, 100, seed=4)))
    assert equal(clones(lively), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_estimating_statistics_of_a_generator_without_them_changes_nothing():
    plain = Generator(batch_norm=False)
    before = copy.deepcopy(plain.state_dict())
    estimate_batch_norm(plain, [(torch.randn(2, 100),)])
    assert equal(before.values(), plain.state_dict().values())


@pytest.mark.usefixtures("quick_gan")
def test_the_archive_is_the_average_with_statistics_of_its_own(images):
    model = learner(discriminator_steps=1, ema_decay=0.5, seed=9)
    for _ in range(2):
        model.step(batches(images, 1), labels(1))
    archive: Any = model.archive()
    # In training mode a network uses the statistics of the batch at hand, here the very batch that
    # the archive's were taken from: the two must agree.
    latents = torch.randn(256, 100, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = torch.sigmoid(copy.deepcopy(model.average.module).train()(latents))
        assert torch.allclose(archive.generate(latents), expected, atol=1e-4)
        last = torch.sigmoid(copy.deepcopy(model.generator).train()(latents))
        assert not torch.allclose(archive.generate(latents), last, atol=1e-3), "not the last weights"


def test_the_archive_gives_images_from_0_to_1_and_raw_logits(images):
    model = learner(batch_norm=False)
    archive: Any = model.archive()
    with torch.no_grad():
        pixels = archive.generate(100 * torch.randn(3, 100))
        logits = archive.discriminate(images[:3])
        expected = copy.deepcopy(model.discriminator).eval()(images[:3])
    assert pixels.shape == (3, 1, 28, 28)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert pixels.min() < 0.01
    assert pixels.max() > 0.99
    assert torch.equal(logits, expected)
    assert not archive.training
    assert not hasattr(archive, "encode")


@pytest.mark.usefixtures("quick_gan")
def test_making_an_archive_leaves_the_learner_as_it_was(images):
    model = learner(discriminator_steps=1)
    model.train()
    model.step(batches(images, 1), labels(1))
    before = copy.deepcopy(model.training_state())
    archive: Any = model.archive()
    nn.init.zeros_(archive.generator.dense.weight)
    nn.init.zeros_(archive.discriminator.layers[0].weight)
    after = model.training_state()
    assert equal(before["modules"].values(), after["modules"].values())
    assert model.generator.training
    assert model.average.module.training
    assert model.discriminator.training

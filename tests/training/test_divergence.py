"""Runs that have gone wrong: noticed early, said clearly, with the last good state kept."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import at_step, state_of
from training import divergence
from training.divergence import (
    Diverged,
    check_losses,
    check_separation,
    check_spread,
    check_weights,
    separation,
    spread,
    spread_within,
)
from training.families.cgan import ConditionalGenerator
from training.families.gan import GanConfig, Generator
from training.families.vae import Decoder, VaeConfig
from training.trainer import CannotResume, train


def test_a_loss_that_is_no_number_is_named_with_its_place_and_what_to_do(tmp_path):
    config = VaeConfig(precision="bfloat16", runs_dir=tmp_path)
    with pytest.raises(Diverged) as caught:
        check_losses(config, {"negative_elbo": math.nan, "kl": 1.0}, epoch=2, step=25)
    text = str(caught.value)
    assert text.startswith("negative_elbo is nan at step 25 of epoch 2. Train anew with")
    for flag in ("--learning-rate", "--seed", "--precision float32"):
        assert flag in text
    assert "kl" not in text
    with pytest.raises(Diverged, match="--generator-learning-rate or --discriminator-learning-rate"):
        check_losses(GanConfig(), {"generator": math.inf}, epoch=1, step=1)


def test_a_state_is_said_to_be_kept_where_there_is_one(tmp_path):
    config = VaeConfig(runs_dir=tmp_path)
    assert "saved state" not in divergence.advice(config)
    config.run_dir.mkdir()
    (config.run_dir / "state.pt").touch()
    assert divergence.advice(config).startswith("The last saved state is kept. Train anew with")


def test_losses_that_are_numbers_pass():
    check_losses(VaeConfig(), {"negative_elbo": 1e30, "kl": 0.0, "other": -5.0}, epoch=1, step=1)


def test_a_weight_that_is_no_number_is_named():
    network = nn.Linear(2, 2)
    check_weights(VaeConfig(), network)
    with torch.no_grad():
        network.bias[1] = math.inf
    with pytest.raises(Diverged, match="the weights bias are not finite"):
        check_weights(VaeConfig(), network)


def test_the_spread_is_the_deviation_over_images_averaged_over_pixels():
    images = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert spread(images) == pytest.approx(float((images / 255).double().std(dim=0, correction=0).mean()), rel=1e-5)
    assert spread(images[:1].expand(50, -1, -1, -1)) == 0
    halves = torch.cat([torch.zeros(5, 1, 2, 2), torch.full((5, 1, 2, 2), 255)]).to(torch.uint8)
    assert spread(halves) == 0.5


def test_the_spread_within_classes_is_none_where_each_class_has_one_image():
    source = torch.Generator().manual_seed(0)
    one_each = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=source)
    labels = torch.arange(30) % 3
    assert spread(one_each[labels]) > 0.2
    assert spread_within(one_each[labels], labels) == 0
    varied = torch.randint(0, 256, (30, 1, 28, 28), dtype=torch.uint8, generator=source)
    parts = [spread(varied[labels == label]) for label in range(3)]
    assert spread_within(varied, labels) == pytest.approx(sum(parts) / 3)
    assert spread_within(varied[:3], torch.arange(3)) == 0, "single images have no spread"


@pytest.mark.usefixtures("no_export", "quick_gan")
def test_a_conditional_generator_that_makes_one_image_a_class_has_collapsed(tiny, dataset, monkeypatch):
    monkeypatch.setattr(divergence, "FIRST_JUDGED_STEP", 1)
    patterns = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 3

    def one_image_a_class(self: ConditionalGenerator, latents: Tensor, labels: Tensor) -> Tensor:
        return forward(self, latents, labels) * 0 + patterns[labels]

    forward = ConditionalGenerator.forward
    monkeypatch.setattr(ConditionalGenerator, "forward", one_image_a_class)
    with pytest.raises(Diverged, match=r"the generator has collapsed: .* is 0\.000 of"):
        train(tiny("cgan", batch_norm=False), dataset=dataset)


def test_the_separation_is_the_mean_distance_to_the_nearest_other_image():
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=source)
    nearest = []
    for number, image in enumerate(images):
        others = torch.cat([images[:number], images[number + 1 :]])
        nearest.append(float(((others.double() - image.double()) / 255).flatten(1).norm(dim=1).min()))
    assert separation(images) == pytest.approx(sum(nearest) / 40, rel=1e-5)
    assert separation(images.repeat(2, 1, 1, 1)) == 0
    assert spread(images.repeat(2, 1, 1, 1)) > 0.2


def test_a_few_images_over_and_over_are_a_collapse_once_there_was_time_to_learn():
    config, step = GanConfig(), divergence.FIRST_JUDGED_STEP
    check_separation(config, 0.0, step - 1)
    check_separation(config, divergence.LEAST_SEPARATION, step)
    for share in (0.099, 0.0, math.nan):
        with pytest.raises(Diverged, match=f"collapsed to a few images: .* is {share:.3f} of .* after {step} steps"):
            check_separation(config, share, step)


@pytest.mark.usefixtures("no_export", "quick_gan")
def test_a_generator_that_makes_ten_images_only_ends_the_run(tiny, dataset, monkeypatch):
    monkeypatch.setattr(divergence, "FIRST_JUDGED_STEP", 1)
    patterns = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 3
    forward = Generator.forward

    def ten_images(self: Generator, latents: Tensor) -> Tensor:
        return forward(self, latents) * 0 + patterns[torch.arange(len(latents)) % 10]

    monkeypatch.setattr(Generator, "forward", ten_images)
    with pytest.raises(Diverged, match=r"the generator has collapsed to a few images: .* is 0\.000 of"):
        train(tiny("gan", batch_norm=False), dataset=dataset)


def test_one_image_for_all_latents_is_a_collapse_once_there_was_time_to_learn():
    config, step = VaeConfig(), divergence.FIRST_JUDGED_STEP
    check_spread(config, 0.0, step - 1)
    check_spread(config, divergence.LEAST_SPREAD, step)
    for share in (0.099, 0.0, math.nan):
        with pytest.raises(Diverged, match=f"collapsed: .* is {share:.3f} of the training .* after {step} steps"):
            check_spread(config, share, step)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("save_steps", [None, 1])
def test_a_run_whose_loss_is_no_number_ends_with_the_last_good_state_kept(tiny, dataset, monkeypatch, save_steps):
    config = tiny("vae", save_steps=save_steps)
    poisoned: list[Decoder] = []
    forward = Decoder.forward

    def poison() -> None:
        def poisoned_forward(self: Decoder, latents: Tensor) -> Tensor:
            poisoned.append(self)
            return forward(self, latents) * math.nan

        monkeypatch.setattr(Decoder, "forward", poisoned_forward)

    at_step(monkeypatch, 8, poison)  # the third of the second epoch
    # Losses are looked at every few steps, and before every state is saved.
    step = 5 if save_steps is None else 3
    with pytest.raises(Diverged, match=f"negative_elbo is nan.* at step {step} of epoch 2"):
        train(config, dataset=dataset)
    assert poisoned
    state = state_of(config)
    assert len(state["history"]) * 5 + state["done"] == (5 if save_steps is None else 7)
    for tensor in state["learner"]["modules"].values():
        assert torch.isfinite(tensor).all()


@pytest.mark.usefixtures("no_export", "quick_gan")
def test_a_generator_that_makes_one_image_only_ends_the_run_and_keeps_the_state_before(tiny, dataset, monkeypatch):
    monkeypatch.setattr(divergence, "FIRST_JUDGED_STEP", 6)
    config = tiny("gan", batch_norm=False, save_steps=4)
    forward = Generator.forward

    def collapse() -> None:
        def one_image(self: Generator, latents: Tensor) -> Tensor:
            return forward(self, latents)[:1].expand(len(latents), -1, -1, -1)

        monkeypatch.setattr(Generator, "forward", one_image)

    at_step(monkeypatch, 9, collapse)
    with pytest.raises(Diverged, match=r"the generator has collapsed: the spread .* is 0\.0\d+ of .* after 10 steps"):
        train(config, dataset=dataset)
    state = state_of(config)
    assert (len(state["history"]), state["done"]) == (1, 3), "the state of step 8"


def test_a_diverged_run_exports_nothing(tiny, dataset, monkeypatch):
    config = tiny("vae", learning_rate=1e30)
    with pytest.raises(Diverged):
        train(config, dataset=dataset)
    assert not config.models_dir.exists()
    with pytest.raises(CannotResume):
        train(config, resume=True, dataset=dataset)

import math

import pytest
import torch
from torch import Tensor

from tests.training.conftest import at_step
from training import divergence
from training.divergence import (
    Diverged,
    check_collapse,
    check_losses,
    separation,
    spread,
    spread_within,
)
from training.families.conditional import LabelConditioned
from training.families.gan import GanConfig, Generator
from training.families.vae import Decoder, VaeConfig
from training.state import read_state
from training.trainer import train


def noise(count: int) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=source)


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_options_to_change(tmp_path):
    config = VaeConfig(precision="bfloat16", runs_dir=tmp_path)
    check_losses(config, {"negative_elbo": 1e30, "kl": 0.0, "other": -5.0}, epoch=1, step=1)
    with pytest.raises(Diverged) as caught:
        check_losses(config, {"negative_elbo": math.nan, "kl": 1.0}, epoch=2, step=25)
    for part in ("negative_elbo is nan", "step 25", "epoch 2", "--learning-rate", "--seed", "--precision float32"):
        assert part in str(caught.value)
    assert "kl" not in str(caught.value)
    assert "saved state" not in str(caught.value)
    config.run_dir.mkdir()
    (config.run_dir / "state.pt").touch()
    with pytest.raises(Diverged, match="saved state is kept"):
        check_losses(config, {"negative_elbo": math.nan}, epoch=2, step=25)
    with pytest.raises(Diverged, match="--generator-learning-rate or --discriminator-learning-rate"):
        check_losses(GanConfig(), {"generator": math.inf}, epoch=1, step=1)


def test_spread_within_classes_is_zero_for_one_image_a_class():
    labels = torch.arange(30) % 3
    images = noise(30)
    assert spread(images[labels]) > 0.2
    assert spread_within(images[labels], labels) == 0
    parts = [spread(images[labels == label]) for label in range(3)]
    assert spread_within(images, labels) == pytest.approx(sum(parts) / 3)
    assert spread_within(images[:3], torch.arange(3)) == 0


def test_separation_is_the_mean_distance_to_the_nearest_neighbour():
    images = noise(40)
    nearest = []
    for number, image in enumerate(images):
        others = torch.cat([images[:number], images[number + 1 :]])
        nearest.append(float(((others.double() - image.double()) / 255).flatten(1).norm(dim=1).min()))
    assert separation(images) == pytest.approx(sum(nearest) / 40, rel=1e-5)
    assert separation(images.repeat(2, 1, 1, 1)) == 0


def test_a_low_share_is_a_collapse_after_the_first_steps():
    config, step = GanConfig(), divergence.FIRST_JUDGED_STEP
    check_collapse(config, 0.0, 0.0, step - 1)
    check_collapse(config, 0.1, 0.1, step)
    for share in (0.099, math.nan):
        for shares in ((share, 1.0), (1.0, share)):
            with pytest.raises(Diverged, match=f"collapsed.* {share:.3f} .* {step} steps"):
                check_collapse(config, *shares, step)


@pytest.mark.usefixtures("no_export")
def test_a_run_whose_loss_is_not_finite_ends_with_the_last_finite_state_saved(tiny, dataset, monkeypatch):
    config = tiny("vae", save_steps=1)
    forward = Decoder.forward

    def corrupt() -> None:
        monkeypatch.setattr(Decoder, "forward", lambda self, latents: forward(self, latents) * math.nan)

    at_step(monkeypatch, 8, corrupt)
    with pytest.raises(Diverged, match=r"negative_elbo is nan"):
        train(config, dataset=dataset)
    state = read_state(config)
    assert len(state["history"]) * 5 + state["done"] == 7
    assert all(torch.isfinite(tensor).all() for tensor in state["learner"]["modules"].values())


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("family", "generator", "images", "words"),
    [
        ("gan", Generator, 2, "collapsed to a few images"),
        ("cgan", LabelConditioned, 10, "collapsed to one image"),
    ],
    ids=["two images", "one image a class"],
)
def test_a_run_whose_generator_collapses_ends_with_the_state_before_saved(
    tiny, dataset, monkeypatch, family, generator, images, words
):
    monkeypatch.setattr(divergence, "FIRST_JUDGED_STEP", 6)
    config = tiny(family, batch_norm=False, save_steps=4)
    forward = generator.forward
    patterns = torch.randn(images, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 3

    def collapse() -> None:
        def repeat(self, latents, *labels):
            chosen = labels[0] if labels else torch.arange(len(latents)) % images
            return forward(self, latents, *labels) * 0 + patterns[chosen]

        monkeypatch.setattr(generator, "forward", repeat)

    at_step(monkeypatch, 9, collapse)
    with pytest.raises(Diverged, match=words):
        train(config, dataset=dataset)
    state = read_state(config)
    assert (len(state["history"]), state["done"]) == (1, 3)  # step 8

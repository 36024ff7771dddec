"""The protocol `held-out-1` against computations of its own kind, on archives whose quality is known."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from app.checkpoints.manifest import Capability
from training.data import Dataset, to_unit_range
from training.evaluation.held_out import cross_entropy, evaluate, nearest_neighbour_accuracy
from training.families.vae import Decoder, Encoder, VaeArchive

VAE: tuple[Capability, ...] = ("generate", "decode", "encode")
GAN: tuple[Capability, ...] = ("generate", "discriminate")


class Copyist(nn.Module):
    """Generates given images, in their order."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def generate(self, latents: Tensor) -> Tensor:
        return self.images[: len(latents)]


class Certain(nn.Module):
    """A VAE that ignores its input: one posterior and one picture for all."""

    def __init__(self, mean: float, log_variance: float, picture: Tensor) -> None:
        super().__init__()
        self.mean, self.log_variance, self.picture = mean, log_variance, picture

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(images), 16)
        return torch.full(shape, self.mean), torch.full(shape, self.log_variance)

    def decode(self, latents: Tensor) -> Tensor:
        return self.picture.expand(len(latents), 1, 28, 28)


def vae() -> VaeArchive:
    torch.manual_seed(0)
    return VaeArchive(Encoder(), Decoder()).eval()


def slow_accuracy(ours: Tensor, theirs: Tensor) -> float:
    """The definition, one image at a time."""
    rows = [(image.flatten(), True) for image in ours] + [(image.flatten(), False) for image in theirs]
    right = 0
    for number, (image, label) in enumerate(rows):
        others = [row for other, row in enumerate(rows) if other != number]
        nearest = min(others, key=lambda row: float((row[0] - image).square().sum()))
        right += nearest[1] == label
    return right / len(rows)


def test_accuracy_is_that_of_the_nearest_neighbour_left_out():
    source = torch.Generator().manual_seed(0)
    for shift in (0.0, 0.05, 0.2):
        ours, theirs = torch.rand(2, 30, 1, 5, 5, generator=source)
        expected = slow_accuracy(ours + shift, theirs)
        assert nearest_neighbour_accuracy(ours + shift, theirs) == pytest.approx(expected)


def test_accuracy_is_near_a_half_for_two_samples_of_one_distribution():
    ours, theirs = torch.rand(2, 400, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert nearest_neighbour_accuracy(ours, theirs) == pytest.approx(0.5, abs=0.06)


def test_accuracy_is_one_for_samples_far_apart():
    ours, theirs = torch.rand(2, 20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert nearest_neighbour_accuracy(ours + 10, theirs) == 1


def test_accuracy_is_zero_for_a_copy(dataset):
    test = to_unit_range(dataset.test_images)
    assert nearest_neighbour_accuracy(test, test.clone()) == 0


def test_cross_entropy_is_that_of_bernoulli_pixels_summed(images):
    picture = images[:3].round()
    p = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double()
    expected = -Bernoulli(p).log_prob(picture.double()).flatten(1).sum(dim=1)
    assert torch.allclose(cross_entropy(p, picture), expected)


def figures(
    archive: nn.Module, capabilities: tuple[Capability, ...], dataset: Dataset, seed: int = 0
) -> dict[str, Any]:
    return evaluate(archive, capabilities, 16, dataset, seed).figures


def test_generated_images_that_are_test_images_score_zero_and_training_images_the_floor(dataset):
    copies = figures(Copyist(to_unit_range(dataset.test_images)), ("generate",), dataset)
    assert copies["nearest_neighbour_accuracy"].value == 0
    honest = figures(Copyist(to_unit_range(dataset.train_images)), ("generate",), dataset)
    figure = honest["nearest_neighbour_accuracy"]
    assert figure.value == figure.floor
    assert figure.floor < figure.ceiling == 1, "noise is told from strokes every time"


def test_elbo_of_a_known_posterior_and_picture_is_that_of_the_formula(dataset):
    archive = Certain(mean=0.5, log_variance=-1.0, picture=torch.full((1, 28, 28), 0.25))
    test = to_unit_range(dataset.test_images).double()
    error = -(test * math.log(0.25) + (1 - test) * math.log(0.75)).sum() / len(test)
    divergence = 16 * float(kl_divergence(Normal(0.5, math.exp(-0.5)), Normal(0.0, 1.0)))
    measured = figures(archive, ("decode", "encode"), dataset)
    assert measured["reconstruction_error"].value == pytest.approx(float(error))
    assert measured["kl_divergence"].value == pytest.approx(divergence, rel=1e-5)
    assert measured["negative_elbo"].value == pytest.approx(float(error) + divergence, rel=1e-5)


def test_a_constant_mean_image_stands_at_the_ceiling_of_the_reconstruction_error(dataset):
    mean_image = to_unit_range(dataset.train_images).mean(dim=0)
    measured = figures(Certain(0.0, 0.0, mean_image), ("decode", "encode"), dataset)
    assert measured["reconstruction_error"].value == pytest.approx(measured["reconstruction_error"].ceiling)
    assert measured["negative_elbo"].value == pytest.approx(measured["negative_elbo"].ceiling)
    assert measured["kl_divergence"].value == measured["kl_divergence"].floor == 0
    assert measured["kl_divergence"].ceiling == pytest.approx(
        measured["negative_elbo"].ceiling - measured["negative_elbo"].floor
    )


def test_the_floor_is_the_entropy_of_the_test_pixels_which_a_perfect_decoder_reaches(dataset):
    one = replace(dataset, test_images=dataset.test_images[:1])
    perfect = Certain(0.0, 0.0, to_unit_range(one.test_images[0]))
    measured = figures(perfect, ("decode", "encode"), one)["reconstruction_error"]
    assert measured.value == pytest.approx(measured.floor)
    p = to_unit_range(one.test_images).double()
    entropy = Bernoulli(p).entropy().sum()
    assert measured.floor == pytest.approx(float(entropy))
    assert 0 < measured.floor < measured.ceiling


def test_the_posterior_is_sampled_not_only_its_mean(dataset):
    archive = vae()
    assert isinstance(archive.encoder, Encoder)
    nn.init.constant_(archive.encoder.log_variance.bias, 4.0)
    measured = figures(archive, VAE, dataset)["reconstruction_error"].value
    with torch.no_grad():
        test = to_unit_range(dataset.test_images)
        of_mean = float(cross_entropy(archive.decode(archive.encode(test)[0]), test).mean())
    assert abs(measured - of_mean) > 0.5


def test_only_what_the_capabilities_allow_is_measured(dataset):
    assert set(figures(vae(), VAE, dataset)) == {
        "nearest_neighbour_accuracy",
        "negative_elbo",
        "reconstruction_error",
        "kl_divergence",
    }
    assert set(figures(vae(), GAN, dataset)) == {"nearest_neighbour_accuracy"}
    assert figures(vae(), ("decode",), dataset) == {}


def test_the_same_seed_measures_the_same_whatever_the_global_random_state(dataset):
    archive = vae()
    torch.manual_seed(1)
    first = evaluate(archive, VAE, 16, dataset, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert evaluate(archive, VAE, 16, dataset, seed=3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert evaluate(archive, VAE, 16, dataset, seed=4) != first
    assert first.protocol == "held-out-1"


def test_training_lowers_the_measured_elbo(dataset, vae_run):
    trained = torch.jit.load(next((vae_run.models_dir / "vae").glob("*.pt")))
    before, after = figures(vae(), VAE, dataset), figures(trained, VAE, dataset)
    assert after["negative_elbo"].value < 0.8 * before["negative_elbo"].value

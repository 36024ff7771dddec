"""What the network receives for each way of drawing images."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from app.checkpoints.manifest import Prior
from training.generation import Controls, balanced_labels, draw_images, draw_latents, quantised


@dataclass(frozen=True)
class Shape:
    """A model with three latent dimensions."""

    conditional: bool = False
    priors: tuple[Prior, ...] = ("normal",)
    latent_dim: int = 3
    input_shape: tuple[int, int, int] = (1, 4, 4)

    @property
    def noise_dim(self) -> int:
        return self.latent_dim + ("fitted" in self.priors)


class Spy(nn.Module):
    """Images of the label, or of the first latent; the prior returns the label, the first and the last column."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        assert latents.shape[1] == 3
        grey = torch.sigmoid(latents[:, 0]) if labels is None else labels / 255
        return grey[:, None, None, None].expand(-1, 1, 4, 4)

    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        assert noise.shape[1] == 4
        return torch.stack([labels.float(), noise[:, 0], noise[:, 3]], dim=1)


PLAIN, CONDITIONAL, FITTED = Shape(), Shape(conditional=True), Shape(priors=("fitted", "normal"))
MANY = torch.zeros(40_000, dtype=torch.int64)


def test_a_conditional_model_receives_the_label_of_each_image():
    images = draw_images(Spy(), CONDITIONAL, balanced_labels(700, 10), seed=0)
    assert (images.shape, images.dtype) == ((700, 1, 4, 4), torch.uint8)
    assert images[:, 0, 0, 0].tolist() == [number % 10 for number in range(700)]


def test_truncated_latents_follow_the_truncated_normal_distribution():
    for bound in (0.5, 2.0):
        latents = draw_latents(Spy(), PLAIN, MANY, 0, Controls(truncation=bound))
        assert latents.abs().max() < bound
        density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
        variance = 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))
        assert latents.var(dim=0) == pytest.approx([variance] * 3, rel=0.03)


def test_a_fitted_prior_receives_labels_and_a_column_that_temperature_does_not_scale():
    labels = balanced_labels(40_000, 10)
    latents = draw_latents(Spy(), FITTED, labels, 0, Controls(temperature=0.5))
    assert torch.equal(latents[:, 0], labels.float())
    assert latents[:, 1].std() == pytest.approx(0.5, rel=0.02)
    assert latents[:, 2].std() == pytest.approx(1.0, rel=0.02)
    normal = draw_latents(Spy(), FITTED, labels, 0, Controls(prior="normal"))
    assert torch.equal(normal, draw_latents(Spy(), PLAIN, labels, 0))


def test_a_seed_gives_the_same_images_and_does_not_change_the_global_random_state():
    state = torch.get_rng_state()
    first = draw_images(Spy(), PLAIN, balanced_labels(300, 10), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(draw_images(Spy(), PLAIN, balanced_labels(300, 10), seed=1), first)
    assert not torch.equal(draw_images(Spy(), PLAIN, balanced_labels(300, 10), seed=2), first)


def test_quantised_images_are_those_of_the_service():
    levels = torch.arange(256) / 255
    assert torch.equal(quantised(levels), torch.arange(256, dtype=torch.uint8))
    assert quantised(torch.tensor([-0.1, 0.5, 1.1])).tolist() == [0, 128, 255]


def test_pixels_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not numbers"):
        quantised(torch.tensor([0.5, math.nan]))

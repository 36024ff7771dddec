"""The flow: its inverse, its determinant, its dequantisation, the training step and the archive."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Normal, SigmoidTransform, TransformedDistribution

from training.data import to_unit_range
from training.families.flow import (
    MARGIN,
    Density,
    Dequantiser,
    Flow,
    FlowConfig,
    FlowLearner,
    FoldedMixing,
    Generate,
    InverseFlow,
    Mixing,
    bits_per_dimension,
    pixel_logits,
)
from training.generation import quantised
from training.learner import DataShape

SMALL = DataShape(classes=3, image=(1, 4, 8))
LABELS = torch.tensor([0, 1, 2, 1])


def randomised(module: Any) -> Any:
    """The module in float64 and eval mode with random weights: zeros would hide errors."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return module.eval()


@pytest.fixture
def flow() -> Flow:
    """A small flow whose statistics are those of some batch."""
    torch.manual_seed(0)
    flow: Flow = randomised(Flow(SMALL, depth=2, width=6))
    flow.train()(1 + 3 * torch.randn(4, 1, 4, 8).double(), LABELS)
    return flow.eval()


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(4, 1, 4, 8, generator=torch.Generator().manual_seed(1)).double()


@torch.enable_grad()
def learner(images: Tensor, steps: int = 3, **config: Any) -> FlowLearner:
    """A small learner after a few steps."""
    torch.manual_seed(0)
    choices: dict[str, Any] = {"width": 16, "depth": 2, "ema_decay": 0.5} | config
    model = FlowLearner(FlowConfig(**choices), DataShape(), 100)
    for _ in range(steps):
        model.step(images[None, :16], (torch.arange(16) % 10)[None])
    return model


@torch.no_grad()
def test_the_inverse_gives_the_logits_back(flow, logits):
    latents, _ = flow(logits, LABELS)
    assert latents.shape == (4, 32)
    assert torch.allclose(InverseFlow(flow).double()(latents, LABELS), logits, atol=1e-9)
    assert not torch.allclose(InverseFlow(flow).double()(latents, LABELS.flip(0)), logits, atol=1e-3)


def test_the_log_determinant_is_that_of_the_jacobian_of_pixels_to_latents(flow, logits):
    for pixels, label in zip(logits.sigmoid(), LABELS, strict=True):

        def latents(values: Tensor, label: Tensor = label) -> Tensor:
            made: Tensor = flow(pixel_logits(values.view(1, 1, 4, 8), 0.01)[0], label[None])[0]
            return made[0]

        jacobian: Any = torch.autograd.functional.jacobian(latents, pixels.flatten())
        logits_of_pixels, first = pixel_logits(pixels[None], 0.01)
        _, second = flow(logits_of_pixels, label[None])
        assert torch.allclose((first + second)[0], torch.linalg.slogdet(jacobian).logabsdet, atol=1e-9)


@torch.no_grad()
def test_the_first_batch_in_training_sets_the_statistics_of_a_mixing_layer():
    torch.manual_seed(0)
    mixing, scales = Mixing(4), torch.tensor([1.0, 5.0, 0.1, 20.0])
    x = torch.randn(8, 4, 6, 6) * scales[:, None, None] + 3
    mixed, log_determinant = mixing(x)
    assert torch.allclose(mixed.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert float(mixed.var(dim=(0, 2, 3)).sum()) == pytest.approx(4, rel=0.05)  # a rotation keeps the sum
    assert float(log_determinant) == pytest.approx(-36 * float(x.std(dim=(0, 2, 3)).log().sum()), rel=0.01)
    assert torch.equal(mixing(x + 100)[0], mixing(x + 100)[0])
    assert float(mixing(x + 100)[0].abs().mean()) > 5


def test_a_mixing_layer_in_eval_mode_takes_no_statistics():
    mixing = Mixing(4).eval()
    mixing(torch.randn(2, 4, 3, 3) + 9)
    assert (int(mixing.batches), float(mixing.mean.abs().max())) == (0, 0)


@torch.no_grad()
def test_a_folded_mixing_layer_computes_the_same(flow):
    x = torch.randn(3, 4, 2, 4).double()
    for ours, theirs in zip(FoldedMixing(flow.fine.steps[0].mixing)(x), flow.fine.steps[0].mixing(x), strict=True):
        assert torch.allclose(ours, theirs)


@torch.no_grad()
def test_the_density_of_the_dequantiser_is_that_of_its_samples(images):
    torch.manual_seed(0)
    dequantiser, x = randomised(Dequantiser()), images[:4].double()
    noise = torch.randn_like(x)
    fractions, log_q = dequantiser(x, noise)
    # The same network with noise 0 and 1 gives mean and deviation of the logits.
    means = torch.logit(dequantiser(x, torch.zeros_like(x))[0])
    deviations = torch.logit(dequantiser(x, torch.ones_like(x))[0]) - means
    expected = TransformedDistribution(Normal(means, deviations), [SigmoidTransform()]).log_prob(fractions)
    assert torch.allclose(log_q, expected.sum(dim=(1, 2, 3)), rtol=1e-6)


class Identity(nn.Module):
    """A flow that changes nothing."""

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits.flatten(1), torch.zeros(len(logits)).double()


@torch.no_grad()
def test_the_bound_is_the_density_over_grey_levels_less_that_of_the_dequantiser(images):
    torch.manual_seed(0)
    dequantiser, x = randomised(Dequantiser()), images[:4].double()
    noise = torch.randn_like(x)
    flow: Any = Identity()
    bound = Density(flow, dequantiser)(x, LABELS, noise)
    fractions, log_q = dequantiser(x, noise)
    # Logits that are standard normal, back to grey levels from 0 to 256.
    steps = [SigmoidTransform(), AffineTransform(-MARGIN / (1 - 2 * MARGIN), 1 / (1 - 2 * MARGIN))]
    density = TransformedDistribution(Normal(0.0, 1.0), [*steps, AffineTransform(0.0, 256.0)], validate_args=False)
    expected = density.log_prob(255 * x + fractions).sum(dim=(1, 2, 3)) - log_q
    assert torch.allclose(bound, expected, rtol=1e-6)


def test_a_step_reports_the_bits_of_its_batch_and_lowers_them(images):
    model = learner(images)
    before = copy.deepcopy(model)
    batch, labels = images[:16], torch.arange(16) % 10
    torch.manual_seed(7)
    reported = model.step(batch[None], labels[None])["bits_per_dimension"]
    torch.manual_seed(7)
    noise = torch.randn(batch.shape)
    with torch.no_grad():
        nats = before.density(batch, labels, noise)
        old = bits_per_dimension(nats, 784).mean()
        new = bits_per_dimension(model.density(batch, labels, noise), 784).mean()
    assert torch.allclose(reported, old)
    assert float(old) == pytest.approx(-float(nats.mean()) / 784 / math.log(2), rel=1e-5)
    assert new < old
    assert not reported.requires_grad


@torch.no_grad()
def test_decoding_the_code_of_an_image_gives_it_back_to_the_grey_level(images, dataset):
    model = learner(images)
    eager = model.archive((dataset.train_images, dataset.train_labels))
    archive: Any = model.fast_archive(eager, torch.float32)
    noisy = torch.randint(256, dataset.test_images.shape, dtype=torch.uint8)
    labels = dataset.test_labels
    for pixels in (dataset.test_images, noisy):
        codes = archive.embed(to_unit_range(pixels), labels)
        assert codes.shape == (len(pixels), 784)
        assert torch.equal(quantised(archive.decode(codes, labels)), pixels)
        assert torch.equal(archive.generate(codes, labels), archive.decode(codes, labels))


def test_the_errors_of_the_way_there_and_back_are_a_figure(images, dataset, monkeypatch):
    model = learner(images)
    assert model.figures(dataset)["round_trip_errors"].value == 0
    decode = Generate.forward
    monkeypatch.setattr(Generate, "forward", lambda *arguments: (decode(*arguments) + 2 / 255).clamp(0, 1))
    figure = model.figures(dataset)["round_trip_errors"]
    assert 0.5 < figure.value <= 1
    assert "by 2 grey levels" in figure.unit


@torch.no_grad()
def test_the_log_likelihood_of_an_archive_is_the_bound_of_the_average_for_one_draw_of_noise(images, training_set):
    model = learner(images, seed=9)
    archive: Any = model.archive(training_set)
    x, labels = images[:5], torch.arange(5)
    noise = torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(9)).expand_as(x)
    nats = archive.log_likelihood(x, labels)
    assert torch.allclose(nats, model.average.module.eval()(x, labels, noise), rtol=1e-5)
    assert torch.equal(archive.log_likelihood(x + 0.3 / 255, labels), archive.log_likelihood(x, labels))


@torch.no_grad()
def test_latents_far_from_the_normal_ones_give_images(images, training_set):
    archive: Any = learner(images).archive(training_set)
    made = archive.generate(torch.full((2, 784), 1000.0) * torch.tensor([[1.0], [-1.0]]), torch.tensor([3, 4]))
    assert bool(((made >= 0) & (made <= 1)).all())


def test_images_whose_sides_cannot_be_halved_twice_are_refused():
    with pytest.raises(ValueError, match="30x28 pixels are no multiples of 4"):
        FlowLearner(FlowConfig(), DataShape(image=(1, 30, 28)), 10)

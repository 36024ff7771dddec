"""The gated PixelCNN: an exact likelihood, pixel after pixel, and a sampler that computes each position once."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.archive import open_archive, script
from training.families.pixelcnn import (
    PixelCnn,
    PixelCnnConfig,
    PixelCnnLearner,
    from_quarters,
    negative_log_likelihood,
    to_quarters,
)
from training.learner import DataShape

SMALL = {"channels": 16, "layers": 3, "detail_channels": 16, "detail_layers": 1}
NO_IMAGES = (torch.empty(0, 1, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))


def learner(side: int = 8, total_steps: int = 1000, **config: Any) -> PixelCnnLearner:
    """A small learner whose weights, those of labels included, are far from their start."""
    torch.manual_seed(0)
    made = PixelCnnLearner(PixelCnnConfig(**(SMALL | config)), DataShape(image=(1, side, side)), total_steps)
    for network in (made.network, made.average.module):
        assert isinstance(network, PixelCnn)
        for module in network.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0, 1)
        for quarter in network.quarters:
            nn.init.normal_(quarter.last.weight, 0, 1)
    made.average.module.load_state_dict(made.network.state_dict())
    return made


def network(side: int = 8, **config: Any) -> PixelCnn:
    return learner(side, **config).network.eval()


def archive(side: int = 8, **config: Any) -> Any:
    return open_archive(script(learner(side, **config).archive(NO_IMAGES)))


def noise(count: int, side: int = 8) -> tuple[Tensor, Tensor]:
    """Latents and labels."""
    source = torch.Generator().manual_seed(1)
    return torch.randn(count, side * side, generator=source), torch.arange(count) % 10


@torch.no_grad()
def test_the_probabilities_of_all_images_of_a_label_sum_to_one():
    made = archive(4, binarised=True, layers=1)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=16))).view(-1, 1, 4, 4)
    likelihoods = made.log_likelihood(images, torch.full((len(images),), 7))
    assert float(likelihoods.double().exp().sum()) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_a_pixel_depends_on_all_pixels_before_it_and_on_no_other():
    model = network()
    levels = torch.randint(256, (1, 1, 8, 8))
    labels = torch.tensor([3])
    before = torch.cat([logits.flatten(2) for logits in model.logits(levels, labels)], dim=2)[0]  # (256, 64)
    reach = torch.zeros(64, 64, dtype=torch.bool)
    for place in range(64):
        quarters = to_quarters(levels).flatten()
        quarters[place] = 255 - quarters[place]
        changed = from_quarters(quarters.view(1, 4, 4, 4))
        after = torch.cat([logits.flatten(2) for logits in model.logits(changed, labels)], dim=2)[0]
        reach[place] = (after != before).any(dim=0)
    assert not reach.tril().any()
    assert reach[:16, :16].triu(1).sum() == 16 * 15 / 2  # within the first quarter all
    assert reach[:16, 16:].any(dim=0).all()


@torch.no_grad()
@pytest.mark.parametrize("binarised", [False, True])
def test_the_sampler_draws_from_the_distributions_of_the_parallel_network(binarised):
    model, made = network(binarised=binarised), archive(binarised=binarised)
    latents, labels = noise(8)
    images = made.generate(latents, labels)
    levels = (images * (model.levels - 1)).round().long()
    assert torch.allclose(levels / (model.levels - 1), images, atol=1e-7)
    uniforms = to_quarters(torch.special.ndtr(latents).view(8, 1, 8, 8))
    for number, logits in enumerate(model.logits(levels, labels)):
        chosen = to_quarters(levels)[:, number, None]
        cumulative = functional.pad(logits.softmax(dim=1).cumsum(dim=1), (0, 0, 0, 0, 1, 0))
        below, above = cumulative.gather(1, chosen), cumulative.gather(1, chosen + 1)
        assert ((below - 1e-5 <= uniforms[:, number, None]) & (uniforms[:, number, None] <= above + 1e-5)).all()


@torch.no_grad()
def test_the_frequencies_of_samples_are_their_probabilities():
    made = archive(2, binarised=True)
    latents, _ = noise(20_000, side=2)
    labels = torch.full((20_000,), 4)
    codes = made.generate(latents, labels).flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0])
    frequencies = torch.bincount(codes.long(), minlength=16) / 20_000
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(-1, 1, 2, 2)
    assert torch.allclose(frequencies, made.log_likelihood(images, labels[:16]).exp(), atol=0.015)


@torch.no_grad()
@pytest.mark.parametrize("binarised", [False, True])
def test_rows_do_not_depend_on_the_batch(one_thread, binarised):
    made = archive(12, binarised=binarised)
    latents, labels = noise(24, side=12)
    images = made.generate(latents, labels)
    nats = made.log_likelihood(images, labels)
    for size in (1, 2, 3, 5, 7, 8, 13):
        parts = list(zip(torch.split(latents, size), torch.split(labels, size), strict=True))
        assert torch.equal(torch.cat([made.generate(*part) for part in parts]), images)
        parts = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
        assert torch.equal(torch.cat([made.log_likelihood(*part) for part in parts]), nats)


@torch.no_grad()
def test_the_label_matters_to_images_and_to_likelihoods():
    made = archive()
    latents, labels = noise(10)
    images = made.generate(latents, labels)
    assert not torch.equal(images, made.generate(latents, (labels + 1) % 10))
    assert not torch.isclose(made.log_likelihood(images, labels), made.log_likelihood(images, (labels + 1) % 10)).any()


def test_the_likelihood_sums_the_logarithms_of_the_softmax_at_the_levels():
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, generator=source)
    levels = torch.randint(5, (2, 3, 4), generator=source)
    expected = [
        -sum(math.log(logits[b, :, y, x].softmax(0)[levels[b, y, x]]) for y in range(3) for x in range(4))
        for b in range(2)
    ]
    assert negative_log_likelihood(logits, levels).tolist() == pytest.approx(expected, rel=1e-5)


def test_quarters_are_the_parities_of_row_and_column_and_are_put_back():
    images = torch.arange(32).view(2, 1, 4, 4)
    quarters = to_quarters(images)
    assert quarters[0].flatten(1).tolist() == [[0, 2, 8, 10], [5, 7, 13, 15], [1, 3, 9, 11], [4, 6, 12, 14]]
    assert torch.equal(from_quarters(quarters), images)


@pytest.mark.parametrize("binarised", [False, True])
def test_a_step_reports_the_loss_of_its_batch_and_lowers_it(images, binarised):
    model = learner(28, total_steps=100, binarised=binarised, learning_rate=0.01)
    batch, labels = images[None, :8], (torch.arange(8) % 10)[None]
    torch.manual_seed(7)
    with torch.no_grad():
        pixels = torch.bernoulli(batch[0]) if binarised else batch[0]
        nats = model.network((pixels * (model.network.levels - 1)).round().long(), labels[0]).mean(dim=0)
    torch.manual_seed(7)
    losses = [model.step(batch, labels) for _ in range(8)]
    assert float(losses[0]["negative_log_likelihood"]) == pytest.approx(float(nats.sum()), rel=1e-5)
    assert float(losses[0]["first_quarter"]) == pytest.approx(float(nats[0]), rel=1e-5)
    assert losses[-1]["negative_log_likelihood"] < losses[0]["negative_log_likelihood"]
    assert not any(loss.requires_grad for loss in losses[0].values())


def test_the_learning_rate_rises_within_the_first_hundredth_and_falls_to_zero_along_a_cosine():
    model = learner(28, total_steps=300, learning_rate=0.01)
    rates = []
    for _ in range(300):
        rates.append(model.optimizer.param_groups[0]["lr"])
        model.optimizer.step()
        model.schedule.step()
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01], rel=1e-3)
    assert rates[150] == pytest.approx(0.005)
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_weights_of_both_capabilities_are_stored_once():
    model = learner(28)
    weights = 4 * sum(parameter.numel() for parameter in model.network.parameters())
    assert weights < len(script(model.archive(NO_IMAGES))) < 1.2 * weights + 100_000

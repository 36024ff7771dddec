"""The deep belief network: distributions and gradients against enumeration, both phases of training, and the chain."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from training.families import dbn
from training.families.dbn import (
    DbnConfig,
    DbnLearner,
    GibbsChain,
    Layer,
    Phase,
    Rbm,
    enhanced_gradient,
    free_energy,
    hashed,
    on_grid,
    row_keys,
    row_means,
)
from training.learner import DataShape

# Two images of 2x4 pixels, one for each label.
LEFT_AND_RIGHT = torch.tensor([[1.0, 1, 0, 0, 1, 1, 0, 0], [0.0, 0, 1, 1, 0, 0, 1, 1]])


def states(units: int) -> Tensor:
    """All states of binary units, `(2^units, units)`."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)))


def rough(visible: int, hidden: int, classes: int = 0) -> Rbm:
    """A machine with large weights and biases."""
    torch.manual_seed(0)
    rbm = Rbm(visible, hidden, classes).requires_grad_(False)
    for parameter in rbm.parameters():
        parameter.normal_()
    return rbm


def joint(rbm: Rbm, visible: Tensor) -> Tensor:
    """-E(v, h) of visible states `(V, visible)` and all hidden states: `(V, 2^hidden)`."""
    hidden = states(len(rbm.hidden_bias))
    return (visible @ rbm.visible_bias)[:, None] + hidden @ rbm.hidden_bias + visible @ rbm.weight @ hidden.t()


def learner(total_steps: int = 4, **config: Any) -> DbnLearner:
    """Of the images `LEFT_AND_RIGHT`, with few units."""
    torch.manual_seed(0)
    choices: dict[str, Any] = {"hidden": 4, "top_hidden": 6, "batch_size": 16} | config
    return DbnLearner(DbnConfig(**choices), DataShape(2, (1, 2, 4)), total_steps)


def batch(rows: int = 16) -> tuple[Tensor, Tensor]:
    labels = torch.arange(rows) % 2
    return LEFT_AND_RIGHT[labels].view(1, rows, 1, 2, 4), labels[None]


def chain(lower: Rbm, top: Rbm, image: tuple[int, int, int], steps: int) -> GibbsChain:
    """A chain whose classes have equal means."""
    return GibbsChain(lower, top, torch.full((top.classes, len(lower.hidden_bias)), 0.5), image, steps)


def test_the_free_energy_sums_over_all_hidden_states():
    rbm, visible = rough(4, 3), states(4)
    energies = free_energy(visible, rbm.visible_bias, rbm.hidden_logits(visible))
    assert torch.allclose(energies, -joint(rbm, visible).logsumexp(dim=1), atol=1e-5)


def test_the_conditional_distributions_are_those_of_the_energy():
    rbm, hidden = rough(3, 2, classes=2), states(2)
    units = states(3)
    visible = torch.cat([units.repeat(2, 1), dbn.LABEL_VALUE * torch.eye(2).repeat_interleave(len(units), 0)], dim=1)
    probabilities = joint(rbm, visible).flatten().softmax(dim=0).view(len(visible), len(hidden))
    given_visible = probabilities / probabilities.sum(dim=1, keepdim=True)
    assert torch.allclose(torch.sigmoid(rbm.hidden_logits(visible)), given_visible @ hidden, atol=1e-5)
    given_hidden = (probabilities / probabilities.sum(dim=0)).t() @ visible  # means of each visible unit
    logits = rbm.visible_logits(hidden)
    assert torch.allclose(torch.sigmoid(logits[:, :3]), given_hidden[:, :3], atol=1e-5)
    labels = torch.softmax(dbn.LABEL_VALUE * logits[:, 3:], dim=1)
    assert torch.allclose(dbn.LABEL_VALUE * labels, given_hidden[:, 3:], atol=1e-5)
    drawn = rbm.sample_visible(hidden[1:2].expand(20_000, -1))
    assert set(drawn[:, 3:].sum(dim=1).tolist()) == {dbn.LABEL_VALUE}
    assert torch.allclose(drawn.mean(dim=0), given_hidden[1], atol=0.05)


def test_the_enhanced_gradient_is_the_gradient_with_the_effect_of_the_means_removed():
    rbm = rough(5, 3).requires_grad_()
    rows, fantasies = torch.bernoulli(torch.full((20, 5), 0.3)), torch.bernoulli(torch.full((30, 5), 0.6))
    logits = rbm.hidden_logits(rows), rbm.hidden_logits(fantasies)
    energies = [free_energy(v, rbm.visible_bias, h).mean() for v, h in zip((rows, fantasies), logits, strict=True)]
    weight, visible, hidden = (-g for g in torch.autograd.grad(energies[0] - energies[1], list(rbm.parameters())))
    mean_visible = (rows.mean(dim=0) + fantasies.mean(dim=0)) / 2
    mean_hidden = (torch.sigmoid(logits[0]).mean(dim=0) + torch.sigmoid(logits[1]).mean(dim=0)) / 2
    expected = weight - torch.outer(mean_visible, hidden) - torch.outer(visible, mean_hidden)
    found = enhanced_gradient(Phase(rows, logits[0]), Phase(fantasies, logits[1]))
    assert torch.allclose(found.weight, expected, atol=1e-6)
    assert torch.allclose(found.visible_bias, visible - expected @ mean_hidden, atol=1e-6)
    assert torch.allclose(found.hidden_bias, hidden - mean_visible @ expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("persistent", [False, True])
def test_the_chains_start_from_the_data_or_go_on(persistent):
    layer = Layer(rough(4, 3), 10, DbnConfig(batch_size=64))
    visible, fantasies, left = torch.bernoulli(torch.full((64, 4), 0.5)), [], []
    for state in (0, 1):
        layer.chains.fill_(state)
        torch.manual_seed(1)
        fantasies.append(layer.phases(visible, persistent=persistent)[1].visible)
        left.append(layer.chains.clone())
    assert torch.equal(fantasies[0], fantasies[1]) != persistent
    assert set(left[0].unique().tolist()) == {0, 1}
    assert torch.equal(left[0], left[1]) != persistent


@torch.no_grad()
def test_restarted_chains_forget_their_states():
    layer = Layer(rough(4, 3), 10, DbnConfig(batch_size=64))
    layer.rbm.weight.fill_(100)  # all hidden units are on where any visible unit is
    chosen = torch.arange(48) < 16
    layer.restart(chosen, torch.ones(48, 4))
    assert layer.chains.sum(dim=1).tolist() == [3] * 16 + [0] * 48


def test_rows_become_the_means_of_their_class():
    rows = torch.tensor([[1.0, 0], [0, 4], [3, 2]])
    assert row_means(rows, torch.tensor([7, 2, 7])).tolist() == [[2, 1], [0, 4], [2, 1]]


def test_the_lower_machine_learns_first_and_then_the_top_one_with_falling_rates():
    model, moved, rates = learner(total_steps=4, lower_learning_rate=0.2, top_learning_rate=0.1), [], []
    for _ in range(4):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizers = model.lower_optimizer, model.top_optimizer
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        losses = model.step(*batch())
        after = model.state_dict()
        moved.append({name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])})
        assert losses.keys() == {"free_energy_difference"}
    assert moved == [{"lower"}, {"lower"}, {"top"}, {"top"}]
    assert rates == [pytest.approx(pair) for pair in ([0.2, 0.1], [0.1, 0.1], [0.0, 0.1], [0.0, 0.05])]


def test_training_learns_the_distribution_of_the_data_and_the_chain_its_labels(monkeypatch):
    model = learner(total_steps=1500, lower_learning_rate=1.0, top_learning_rate=1.0)
    for _ in range(1500):
        model.step(*batch())
    lower = model.lower.averaged
    with torch.no_grad():
        everything = free_energy(states(8), lower.visible_bias, lower.hidden_logits(states(8)))
        ours = free_energy(LEFT_AND_RIGHT, lower.visible_bias, lower.hidden_logits(LEFT_AND_RIGHT))
        nats = ours.mean() + (-everything).logsumexp(dim=0)
        # log 2 for two images that are equally frequent; an untrained machine needs 8 log 2 for 8 pixels.
        assert math.log(2) < nats < math.log(2) + 0.7
        monkeypatch.setattr(dbn, "CHAIN_STEPS", 20)
        labels = torch.arange(200) % 2
        images, classes = batch()
        archive: Any = model.archive(((255 * images[0]).to(torch.uint8), classes[0]))
        made = archive.generate(torch.randn(200, dbn.LATENT_DIM), labels)
    errors = (made.flatten(1) - LEFT_AND_RIGHT[labels]).abs().mean(dim=1)
    assert float(errors.median()) < 0.15


def test_the_figure_is_the_likelihood_of_the_lower_machine(dataset, monkeypatch):
    torch.manual_seed(0)
    model = DbnLearner(DbnConfig(hidden=3, top_hidden=4), DataShape(), 10)
    monkeypatch.setattr(dbn, "inverse_temperatures", lambda: [i / 50 for i in range(51)])
    (figure,) = model.figures(dataset).values()
    # With weights near 0 each pixel costs log 2.
    assert figure.value == pytest.approx(784 * math.log(2), rel=0.02)
    assert figure.standard_error
    assert figure.standard_error < 1


@torch.no_grad()
def test_the_chain_draws_from_the_distribution_of_the_top_machine_given_the_label():
    top = rough(3, 2, classes=2)
    lower = Rbm(4, 3).requires_grad_(False)  # each hidden unit lights a pixel of its own
    lower.weight.copy_(40 * torch.eye(4)[:, :3])
    lower.visible_bias.fill_(-20)
    rows = 20_000
    labels = torch.arange(rows) % 2
    images = chain(lower, top, (1, 2, 2), 30)(torch.randn(rows, 4), labels).flatten(1)
    assert images.shape == (rows, 4)
    patterns = states(3)
    for label in (0, 1):
        logits = patterns @ top.weight[:3] + top.hidden_bias + dbn.CLAMPED_VALUE * top.weight[3 + label]
        expected = (-free_energy(patterns, top.visible_bias[:3], logits)).softmax(dim=0)
        drawn = images[labels == label][:, :3].round() @ torch.tensor([4.0, 2, 1])
        found = torch.bincount(drawn.long(), minlength=8) / (rows / 2)
        assert torch.allclose(found, expected, atol=0.02)


@torch.no_grad()
def test_rows_of_the_chain_do_not_depend_on_the_batch(one_thread):
    network = chain(rough(16, 60), rough(60, 211, classes=3), (1, 4, 4), 10)
    latents, labels = torch.randn(40, 4), torch.arange(40) % 3
    together = network(latents, labels)
    for size in (1, 2, 3, 5, 8, 13):
        parts = [network(*part) for part in zip(torch.split(latents, size), torch.split(labels, size), strict=True)]
        assert torch.equal(torch.cat(parts), together), f"in batches of {size}"


def test_sums_of_rounded_weights_are_exact_in_any_order():
    torch.manual_seed(0)
    weight, bias = torch.randn(400, 300), torch.randn(300)
    rounded, rounded_bias = on_grid(weight, bias)
    assert torch.allclose(rounded, weight, atol=1e-4)
    bits = torch.bernoulli(torch.full((8, 400), 0.5))
    exact = (bits.double() @ rounded.double() + rounded_bias.double()).float()
    for order in (torch.arange(400), torch.randperm(400)):
        assert torch.equal(torch.addmm(rounded_bias, bits[:, order], rounded[order]), exact)


def test_the_random_numbers_are_uniform_and_uncorrelated():
    network = chain(rough(4, 100), rough(100, 100, classes=2), (1, 2, 2), 1)
    keys = row_keys(torch.randn(300, 4))
    logistic = torch.stack([network.logistic(keys, step) for step in (0, 1, 2)])  # (steps, rows, units)
    u = torch.sigmoid(logistic.double())
    assert float(u.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(u.var()) == pytest.approx(1 / 12, abs=0.002)
    centred = u - 0.5
    for ours, theirs in (
        (centred[1:], centred[:-1]),
        (centred[:, 1:], centred[:, :-1]),
        (centred[..., 1:], centred[..., :-1]),
        (centred[..., :100], centred[..., 100:]),  # the halves of a word
    ):
        assert abs(float((ours * theirs).mean() * 12)) < 0.015


def test_keys_differ_for_latents_that_differ_in_one_bit():
    latents = torch.randn(500, 4)
    near = [latents.clone() for _ in range(4)]
    for column, rows in enumerate(near):
        rows[:, column] = torch.nextafter(rows[:, column], torch.tensor(torch.inf))
    keys = row_keys(torch.cat([latents, *near, -latents, latents / 2]))
    for column in (0, 1):
        assert len(keys[:, column].unique()) >= len(keys) - 1
    flips = hashed(keys[:500, 0], keys[:500, 1]) ^ hashed(keys[500:1000, 0], keys[500:1000, 1])
    ones = torch.stack([(flips >> bit) & 1 for bit in range(32)]).sum(dim=0)
    assert float(ones.double().mean()) == pytest.approx(16, abs=1)


def test_the_hash_is_lowbias32():
    def lowbias32(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
        return x ^ (x >> 16)

    words = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]
    signed = torch.tensor(words).to(torch.int32)
    assert (hashed(signed, torch.tensor(0, dtype=torch.int32)).long() & 0xFFFFFFFF).tolist() == list(
        map(lowbias32, words)
    )

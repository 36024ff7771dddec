"""The variational families: losses against independent computations, the training step and the archive."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl

from training.families.cvae import CvaeConfig, CvaeLearner
from training.families.vae import VaeConfig, VaeLearner
from training.families.variational import kl_divergence, negative_elbo, reconstruction_error
from training.learner import DataShape

LABELS = (torch.arange(16) % 10)[None]


def vae(total_steps: int = 30, **config: Any) -> VaeLearner:
    torch.manual_seed(0)
    return VaeLearner(VaeConfig(components=1, **config), DataShape(), total_steps)


def cvae(**config: Any) -> CvaeLearner:
    torch.manual_seed(0)
    return CvaeLearner(CvaeConfig(components=1, **config), DataShape(), 1000)


@pytest.fixture
def posterior():
    """Means and log-variances `(6, 16)` and, of the same batch, logits and grey images `(6, 1, 28, 28)`."""
    source = torch.Generator().manual_seed(3)
    mean, log_variance = torch.randn(2, 6, 16, generator=source).double()
    logits = 3 * torch.randn(6, 1, 28, 28, generator=source).double()
    images = torch.rand(6, 1, 28, 28, generator=source).double()
    return mean, log_variance, logits, images


def test_kl_divergence_is_that_of_two_normal_distributions_summed_over_latent_dimensions(posterior):
    mean, log_variance, _, _ = posterior
    expected = kl.kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    assert torch.allclose(kl_divergence(mean, log_variance), expected)


def test_reconstruction_error_is_the_cross_entropy_summed_over_pixels(posterior):
    _, _, logits, images = posterior
    p = 1 / (1 + torch.exp(-logits))
    expected = -(images * p.log() + (1 - images) * (1 - p).log()).flatten(1).sum(dim=1)
    assert torch.allclose(reconstruction_error(logits, images), expected)


def test_negative_elbo_averages_error_and_beta_times_divergence_over_the_batch(posterior):
    mean, log_variance, logits, images = posterior
    expected = (reconstruction_error(logits, images) + 4 * kl_divergence(mean, log_variance)).sum() / 6
    assert torch.allclose(negative_elbo(logits, images, mean, log_variance, beta=4.0), expected)


@pytest.mark.parametrize("make", [vae, cvae])
def test_a_step_reports_the_losses_of_its_batch(images, make):
    model = make(beta=3.0)
    before = copy.deepcopy(model)
    torch.manual_seed(7)
    losses = model.step(images[None, :16], LABELS)
    torch.manual_seed(7)
    with torch.no_grad():
        logits, mean, log_variance = before.run(images[:16], LABELS[0], torch.randn(16, 16))
        expected = kl_divergence(mean, log_variance).mean()
        assert torch.allclose(losses["kl_divergence"], expected)
        assert torch.allclose(losses["negative_elbo"], reconstruction_error(logits, images[:16]).mean() + 3 * expected)
    assert not any(loss.requires_grad for loss in losses.values())


def test_the_learning_rate_falls_to_zero_along_a_cosine(images):
    model = vae(total_steps=4, learning_rate=0.01)
    rates = []
    for _ in range(4):
        rates.append(model.optimizer.param_groups[0]["lr"])
        model.step(images[None, :4], LABELS[:, :4])
    assert rates == pytest.approx([0.01, 0.01 * (2 + math.sqrt(2)) / 4, 0.005, 0.01 * (2 - math.sqrt(2)) / 4])
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_archive_is_a_copy_of_the_average_not_of_the_last_weights(images, training_set):
    model = vae(ema_decay=0.9)
    for _ in range(3):
        model.step(images[None, :8], LABELS[:, :8])
    archive: Any = model.archive(training_set)
    latents = torch.randn(3, 16)
    average: Any = model.average.module
    last: Any = model.vae
    with torch.no_grad():
        made = archive.generate(latents)
        assert torch.allclose(made, torch.sigmoid(average.decoder(latents)), atol=1e-6)
        assert torch.equal(archive.decode(latents), made)
        assert torch.equal(archive.encode(images[:3])[0], average.encoder(images[:3])[0])
        assert not torch.allclose(made, torch.sigmoid(last.decoder(latents)), atol=1e-5)
    model.step(images[None, :8], LABELS[:, :8])
    with torch.no_grad():
        assert torch.equal(archive.generate(latents), made)
    assert not archive.training


def test_a_conditional_vae_encodes_and_decodes_by_label(images, training_set):
    archive: Any = cvae().archive(training_set)
    latents, labels = torch.randn(16, 16), LABELS[0]
    others = (labels + 1) % 10
    with torch.no_grad():
        assert not torch.equal(archive.decode(latents, labels), archive.decode(latents, others))
        assert not torch.equal(archive.encode(images[:16], labels)[0], archive.encode(images[:16], others)[0])
        assert archive.prior(torch.randn(16, 17), labels).shape == (16, 16)

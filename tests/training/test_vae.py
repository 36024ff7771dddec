"""The VAE: its networks, its loss against independent computations, its step and its archive."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl

from training.config import VaeConfig
from training.families.vae import (
    Decoder,
    Encoder,
    Vae,
    VaeArchive,
    VaeLearner,
)
from training.families.variational import kl_divergence, negative_elbo, reconstruction_error

# Classes of the images, which a VAE without labels ignores.
LABELS = torch.zeros(1, 16, dtype=torch.long)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def learner(total_steps: int = 30, **config: Any) -> VaeLearner:
    torch.manual_seed(0)
    return VaeLearner(VaeConfig(**config), total_steps, classes=10)


@pytest.fixture
def posterior():
    """Means and log-variances `(6, 16)` and, of the same batch, logits and grey images `(6, 1, 28, 28)`."""
    source = torch.Generator().manual_seed(3)
    mean, log_variance = torch.randn(2, 6, 16, generator=source).double()
    logits = 3 * torch.randn(6, 1, 28, 28, generator=source).double()
    images = torch.rand(6, 1, 28, 28, generator=source).double()
    return mean, log_variance, logits, images


def test_networks_have_the_published_numbers_of_parameters():
    assert parameters(Encoder()) == 424_480
    assert parameters(Decoder()) == 108_993


def test_encoder_gives_sixteen_means_and_log_variances_an_image(images):
    mean, log_variance = Encoder()(images[:5])
    assert mean.shape == log_variance.shape == (5, 16)
    assert not torch.equal(mean, log_variance)


def test_encoder_halves_the_image_twice(images):
    shapes = []
    encoder = Encoder()
    for layer in encoder.features:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(images[:2])
    assert shapes == [(32, 14, 14), (32, 14, 14), (64, 7, 7), (64, 7, 7), (3136,), (128,), (128,)]


def test_decoder_gives_logits_not_pixels():
    torch.manual_seed(0)
    decoder = Decoder()
    logits = decoder(100 * torch.randn(5, 16))
    assert logits.shape == (5, 1, 28, 28)
    assert logits.min() < 0
    assert logits.max() > 1


def test_archive_gives_images_from_0_to_1_that_are_the_sigmoid_of_the_logits(images):
    torch.manual_seed(0)
    vae = Vae().eval()
    archive = VaeArchive(vae.encoder, vae.decoder)
    latents = 100 * torch.randn(5, 16)
    with torch.no_grad():
        expected = 1 / (1 + torch.exp(-vae.decoder(latents)))
        for capability in (archive.generate, archive.decode):
            pixels = capability(latents)
            assert pixels.shape == (5, 1, 28, 28)
            assert pixels.min() >= 0
            assert pixels.max() <= 1
            assert torch.allclose(pixels, expected, atol=1e-6)
        mean, log_variance = archive.encode(images[:5])
        assert torch.equal(mean, vae.encoder(images[:5])[0])
        assert torch.equal(log_variance, vae.encoder(images[:5])[1])


def test_latents_are_the_mean_plus_noise_times_the_standard_deviation(images):
    torch.manual_seed(0)
    vae, noise = Vae(), torch.randn(4, 16)
    with torch.no_grad():
        logits, mean, log_variance = vae(images[:4], noise)
        latents = Normal(mean, log_variance.exp().sqrt()).mean + noise * log_variance.exp().sqrt()
        assert torch.allclose(logits, vae.decoder(latents), atol=1e-5)
        assert not torch.allclose(logits, vae.decoder(mean), atol=1e-3), "the noise matters"


def test_kl_divergence_is_that_of_two_normal_distributions_summed_over_latent_dimensions(posterior):
    mean, log_variance, _, _ = posterior
    ours = kl_divergence(mean, log_variance)
    theirs = kl.kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert ours.shape == (6,)
    assert torch.allclose(ours, theirs.sum(dim=1))


def test_kl_divergence_of_the_prior_is_zero():
    assert torch.equal(kl_divergence(torch.zeros(2, 16), torch.zeros(2, 16)), torch.zeros(2))


def test_reconstruction_error_is_the_cross_entropy_summed_over_pixels(posterior):
    _, _, logits, images = posterior
    p = 1 / (1 + torch.exp(-logits))
    expected = [
        -sum(
            x * math.log(q) + (1 - x) * math.log(1 - q)
            for x, q in zip(image.flatten().tolist(), row.flatten().tolist(), strict=True)
        )
        for image, row in zip(images, p, strict=True)
    ]
    assert torch.allclose(reconstruction_error(logits, images), torch.tensor(expected).double())


def test_negative_elbo_is_summed_over_pixels_and_dimensions_and_averaged_over_the_batch(posterior):
    mean, log_variance, logits, images = posterior
    p, q = 1 / (1 + torch.exp(-logits)), Normal(mean, (log_variance / 2).exp())
    total = -(images * p.log() + (1 - images) * (1 - p).log()).sum()
    total += kl.kl_divergence(q, Normal(0.0, 1.0)).sum()
    loss = negative_elbo(logits, images, mean, log_variance)
    assert loss.shape == ()
    assert torch.allclose(loss, total / 6)


def test_negative_elbo_of_a_batch_twice_is_that_of_the_batch(posterior):
    mean, log_variance, logits, images = posterior
    once = negative_elbo(logits, images, mean, log_variance)
    logits, images, mean, log_variance = (torch.cat([part] * 2) for part in (logits, images, mean, log_variance))
    assert torch.allclose(negative_elbo(logits, images, mean, log_variance), once)


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_scales_the_kl_divergence_and_nothing_else(posterior, beta):
    mean, log_variance, logits, images = posterior
    loss = negative_elbo(logits, images, mean, log_variance, beta)
    without = reconstruction_error(logits, images).mean()
    assert torch.allclose(loss - without, beta * kl_divergence(mean, log_variance).mean())


def test_thirty_steps_lower_the_loss(images):
    model = learner(total_steps=30)
    losses = [float(model.step(images[None, :16], LABELS[:, :16])["negative_elbo"]) for _ in range(30)]
    # At the start every pixel costs about log 2; the strokes are mostly ground, which is learnt first.
    assert losses[0] == pytest.approx(784 * math.log(2), rel=0.2)
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_reports_the_loss_of_its_batch_and_the_kl_divergence_in_it(images):
    # The same networks and the same noise, by hand.
    model = learner(beta=3.0)
    before = copy.deepcopy(model.vae)
    torch.manual_seed(7)
    losses = model.step(images[None, :8], LABELS[:, :8])
    torch.manual_seed(7)
    with torch.no_grad():
        logits, mean, log_variance = before(images[:8], torch.randn(8, 16))
        expected = kl_divergence(mean, log_variance).mean()
        assert torch.allclose(losses["kl_divergence"], expected)
        error = reconstruction_error(logits, images[:8]).mean()
        assert torch.allclose(losses["negative_elbo"], error + 3 * expected)
    assert not any(loss.requires_grad for loss in losses.values())


def test_the_learning_rate_falls_to_zero_along_a_cosine(images):
    model = learner(total_steps=4, learning_rate=0.01)
    rates = []
    for _ in range(4):
        rates.append(model.optimizer.param_groups[0]["lr"])
        model.step(images[None, :4], LABELS[:, :4])
    assert rates == pytest.approx([0.01, 0.01 * (2 + math.sqrt(2)) / 4, 0.005, 0.01 * (2 - math.sqrt(2)) / 4])
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_average_moves_towards_the_weights_as_its_warm_up_says(images):
    model = learner(ema_decay=0.9)
    model.step(images[None, :8], LABELS[:, :8])
    first = [weight.detach().clone() for weight in model.vae.parameters()]
    model.step(images[None, :8], LABELS[:, :8])
    for average, one, two in zip(model.average.module.parameters(), first, model.vae.parameters(), strict=True):
        assert torch.allclose(average, 2 / 11 * one + 9 / 11 * two, atol=1e-7)
    assert any(not torch.equal(one, two) for one, two in zip(first, model.vae.parameters(), strict=True))


def test_the_archive_holds_the_average_not_the_last_weights(images):
    model = learner(ema_decay=0.9)
    for _ in range(3):
        model.step(images[None, :8], LABELS[:, :8])
    archive: Any = model.archive()
    latents = torch.randn(3, 16)
    average: Any = model.average.module
    last: Any = model.vae
    with torch.no_grad():
        assert torch.allclose(archive.generate(latents), torch.sigmoid(average.decoder(latents)), atol=1e-7)
        assert torch.equal(archive.encode(images[:3])[0], average.encoder(images[:3])[0])
        assert not torch.allclose(archive.generate(latents), torch.sigmoid(last.decoder(latents)), atol=1e-5)
    assert not archive.training


def test_later_steps_leave_an_archive_as_it_was(images):
    model = learner()
    model.step(images[None, :8], LABELS[:, :8])
    archive: Any = model.archive()
    latents = torch.randn(3, 16)
    before = archive.generate(latents)
    model.step(images[None, :8], LABELS[:, :8])
    model.step(images[None, :8], LABELS[:, :8])
    assert torch.equal(archive.generate(latents), before)

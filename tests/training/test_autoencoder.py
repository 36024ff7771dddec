"""The deterministic autoencoder: its loss, its step and its archive."""

import copy
from typing import Any

import torch

from training.families.autoencoder import AutoencoderConfig, AutoencoderLearner, regularised_error
from training.families.variational import reconstruction_error
from training.learner import DataShape

LABELS = (torch.arange(16) % 10)[None]


def learner(**config: Any) -> AutoencoderLearner:
    torch.manual_seed(0)
    return AutoencoderLearner(AutoencoderConfig(components=1, **config), DataShape(), 1000)


def test_the_loss_is_the_mean_of_the_error_and_the_penalty_times_half_the_squared_norm_of_the_code():
    source = torch.Generator().manual_seed(3)
    logits, codes = torch.randn(6, 1, 28, 28, generator=source), torch.randn(6, 16, generator=source)
    images = torch.rand(6, 1, 28, 28, generator=source)
    expected = reconstruction_error(logits, images) + 0.3 * codes.norm(dim=1) ** 2 / 2
    assert torch.allclose(regularised_error(logits, images, codes, 0.3), expected.mean())


def test_a_step_reports_the_losses_of_its_batch_and_lowers_them(images):
    model = learner()
    before = copy.deepcopy(model)
    losses = model.step(images[None, :16], LABELS)
    with torch.no_grad():
        logits, codes = before.autoencoder(images[:16])
        error = reconstruction_error(logits, images[:16]).mean()
        assert torch.allclose(losses["reconstruction_error"], error)
        assert torch.allclose(losses["half_squared_norm"], codes.square().sum(dim=1).mean() / 2)
        after = reconstruction_error(model.autoencoder(images[:16])[0], images[:16]).mean()
    assert after < error
    assert not any(loss.requires_grad for loss in losses.values())


def test_weight_decay_moves_only_the_decoder(images):
    plain, decayed = learner(decoder_decay=0.0), learner(decoder_decay=0.5)
    for model in (plain, decayed):
        model.step(images[None, :16], LABELS)
    networks = [
        (model.autoencoder.encoder.state_dict(), model.autoencoder.decoder.state_dict()) for model in (plain, decayed)
    ]
    (encoder, decoder), (same_encoder, smaller_decoder) = networks
    assert all(torch.equal(encoder[name], same_encoder[name]) for name in encoder)
    assert all(smaller_decoder[name].norm() < decoder[name].norm() for name in decoder)


def test_the_archive_embeds_and_decodes_by_the_average_and_draws_codes_of_each_class(images, training_set):
    model = learner(ema_decay=0.9)
    for _ in range(3):
        model.step(images[None, :16], LABELS)
    archive: Any = model.archive(training_set)
    average: Any = model.average.module
    with torch.no_grad():
        codes = archive.embed(images[:16])
        assert torch.equal(codes, average.encoder(images[:16]))
        assert torch.allclose(archive.decode(codes), torch.sigmoid(average.decoder(codes)), atol=1e-6)
        drawn = archive.prior(torch.randn(500, 17), torch.full((500,), 4))
        of_class = average.encoder(training_set[0][training_set[1] == 4] / 255)
    assert torch.allclose(drawn.mean(dim=0), of_class.mean(dim=0), atol=0.1)

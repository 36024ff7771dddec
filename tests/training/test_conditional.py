"""The families that know the digit: cgan and cvae, their steps and their archives."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import CganConfig, CvaeConfig
from training.families.cgan import CganLearner, ConditionalGenerator
from training.families.cvae import CvaeLearner
from training.families.discriminators import ProjectionDiscriminator
from training.families.variational import kl_divergence, reconstruction_error

LABELS = torch.arange(16) % 10


def gan(**config: Any) -> CganLearner:
    torch.manual_seed(0)
    return CganLearner(CganConfig(**config), total_steps=1000, classes=10)


def vae(**config: Any) -> CvaeLearner:
    torch.manual_seed(0)
    return CvaeLearner(CvaeConfig(**config), total_steps=1000, classes=10)


def others(labels: Tensor) -> Tensor:
    return (labels + 1) % 10


def test_a_projection_discriminator_adds_the_inner_product_of_features_and_embedding(images):
    torch.manual_seed(0)
    network = ProjectionDiscriminator(classes=10)
    with torch.no_grad():
        features = network.features(images[:6])
        for label in (0, 7):
            logits = network(images[:6], torch.full((6,), label))
            expected = network.logit(features)[:, 0] + features @ network.embedding.weight[label]
            assert torch.allclose(logits, expected, atol=1e-5)


def test_the_discriminator_is_shown_fakes_with_the_labels_they_were_made_for(images):
    model, seen = gan(), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].clone()))
    model.step(images[None, :16], LABELS[None])
    both, penalised, last = seen
    assert torch.equal(both, torch.cat([LABELS, LABELS]))
    assert torch.equal(penalised, LABELS[:4]), "a quarter of the real images, with their labels"
    assert torch.equal(last, LABELS)


def test_a_step_teaches_the_embeddings_of_the_labels_it_saw_and_no_other(images):
    model = gan()
    generator = model.generator
    assert isinstance(generator, ConditionalGenerator)
    before = generator.embedding.weight.detach().clone()
    model.step(images[None, :16], (LABELS % 3)[None])
    moved = (generator.embedding.weight.detach() != before).any(dim=1)
    assert moved.tolist() == [True] * 3 + [False] * 7


@pytest.mark.usefixtures("quick_gan")
def test_a_conditional_gan_archive_makes_and_judges_by_label(images):
    model = gan()
    model.step(images[None, :16], LABELS[None])
    archive: Any = model.archive()
    latents = torch.randn(16, 100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert archive.generate(latents, LABELS).shape == (16, 1, 28, 28)
        assert not torch.equal(archive.generate(latents, LABELS), archive.generate(latents, others(LABELS)))
        nn.init.normal_(archive.discriminator.embedding.weight)
        logits = archive.discriminate(images[:16], LABELS)
        assert logits.shape == (16,)
        assert not torch.equal(logits, archive.discriminate(images[:16], others(LABELS)))


def test_a_step_of_the_conditional_vae_reports_the_bound_of_its_batch(images):
    model = vae(beta=2.0)
    torch.manual_seed(7)
    noise = torch.randn(16, 16)
    with torch.no_grad():
        logits, mean, log_variance = model.run(images[:16], LABELS, noise)
        kl = kl_divergence(mean, log_variance).mean()
        expected = reconstruction_error(logits, images[:16]).mean() + 2 * kl
    torch.manual_seed(7)
    losses = model.step(images[None, :16], LABELS[None])
    assert torch.allclose(losses["negative_elbo"], expected, rtol=1e-5)
    assert torch.allclose(losses["kl_divergence"], kl, rtol=1e-5)


def test_a_conditional_vae_encodes_and_decodes_by_label(images):
    archive: Any = vae().archive()
    latents = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert not torch.equal(archive.decode(latents, LABELS), archive.decode(latents, others(LABELS)))
        mean, _ = archive.encode(images[:16], LABELS)
        other, _ = archive.encode(images[:16], others(LABELS))
    assert mean.shape == (16, 16)
    assert not torch.equal(mean, other)


def test_the_prior_is_fitted_only_where_a_training_set_is_given(dataset):
    model = vae(components=1)
    assert not hasattr(model.archive(), "prior")
    archive: Any = model.archive((dataset.train_images, dataset.train_labels))
    noise = torch.randn(16, 17, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert archive.prior(noise, LABELS).shape == (16, 16)


def test_binarised_training_shows_the_network_black_and_white_drawn_anew(images):
    model, seen = vae(binarised=True), []
    model.vae.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    grey = torch.full((1, 16, 1, 28, 28), 0.25)
    model.step(grey, LABELS[None])
    model.step(grey, LABELS[None])
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert float(seen[0].mean()) == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(seen[0], seen[1])

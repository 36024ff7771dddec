"""The deep convolutional GAN: its layers, folding, the fast form, and the way from training to the service."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import serving
from tests.training.conftest import manifest_of, serves_equal_rows
from training.families.adversarial import gradient_penalty
from training.families.batch_norm import fold_batch_norm
from training.families.dcgan import DcganConfig, DcganDiscriminator, DcganGenerator, DcganLearner, fast_form
from training.learner import DataShape
from training.trainer import train


def learner(**config: Any) -> DcganLearner:
    torch.manual_seed(0)
    return DcganLearner(DcganConfig(channels=16, **config), DataShape(), 30)


@pytest.fixture
def lively() -> DcganGenerator:
    """A generator whose statistics, scales and biases are far from their start."""
    torch.manual_seed(1)
    generator = DcganGenerator(16, batch_norm=True)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.3)
    return generator.eval()


def test_there_is_no_pooling_and_no_dense_layer_but_the_projection():
    model = learner()
    dense = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert dense == ["generator.projection", "average.module.projection"]
    assert not any("Pool" in type(module).__name__ for module in model.modules())


@torch.no_grad()
def test_folding_computes_the_same_function_without_batch_normalisation(lively):
    plain, latents = fold_batch_norm(lively, "projection"), torch.randn(16, 100)
    assert torch.allclose(plain(latents), lively(latents), atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_fast_form_computes_the_same_function(lively, dtype, allowed):
    plain, latents = fold_batch_norm(lively, "projection"), torch.randn(5, 100)
    logits = fast_form(plain, dtype)(latents)
    assert torch.allclose(logits, plain(latents), atol=allowed * float(plain(latents).abs().max()))


def test_a_logit_depends_on_its_own_image_only(images):
    discriminator = DcganDiscriminator()
    assert torch.allclose(discriminator(images[:8])[3:4], discriminator(images[3:4]), atol=1e-5)
    assert gradient_penalty(discriminator, images[:8]).shape == ()


@pytest.mark.usefixtures("one_thread")
def test_rows_do_not_depend_on_how_many_there_are(dataset):
    assert serves_equal_rows(learner(), dataset)


def test_a_trained_model_is_served(tiny, dataset):
    config = tiny("dcgan")
    train(config, dataset=dataset)
    assert manifest_of(config).capabilities == ("generate", "discriminate")
    with serving(models_dir=config.models_dir) as client:
        ours, again = (client.post("/generate", json={"n": count, "seed": 7}).json()["images"] for count in (2, 3))
        assert ours == again[:2]
        assert len(client.post("/score", json={"n": 2, "seed": 7}).json()["scores"]) == 2

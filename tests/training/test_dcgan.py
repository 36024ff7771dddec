"""The deep convolutional GAN: its layers."""

import torch
from torch import nn

from training.families.dcgan import DcganConfig, DcganDiscriminator, DcganLearner
from training.learner import DataShape


def test_there_is_no_pooling_and_no_dense_layer_but_the_projection():
    model = DcganLearner(DcganConfig(channels=16), DataShape(), 30)
    dense = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert dense == ["generator.projection", "average.module.projection"]
    assert not any("Pool" in type(module).__name__ for module in model.modules())


def test_a_logit_depends_on_its_own_image_only(images):
    discriminator = DcganDiscriminator()
    assert torch.allclose(discriminator(images[:8])[3:4], discriminator(images[3:4]), atol=1e-5)

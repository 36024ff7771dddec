"""Golden rows follow the capability table; an archive that differs from the trained network is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.archive import EagerArchive, Networks, open_archive, script
from training.golden import ExportMismatch, golden_rows, input_rows
from training.learner import DataShape, Learner, TrainingSet


class Drawer(nn.Module):
    """Latents, and labels where there are any, to images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 1, 28, 28))
        self.drift = 0.0

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images = torch.sigmoid(latents[:, :1, None, None] * self.weight[labels])
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            images = images + self.drift
        return images


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drift = 0.0

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.flatten(1)[:, :4] + labels[:, None]
        log_variance = mean
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            log_variance = mean + self.drift
        return mean, log_variance


class ToyLearner(Learner):
    latent_dim, conditional = 4, True

    def __init__(self, drift: float = 0.0, encoded_drift: float = 0.0) -> None:
        super().__init__(DataShape())
        self.drawer, self.encoder = Drawer(), Encoder()
        self.drawer.drift, self.encoder.drift = drift, encoded_drift

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def networks(self, training_set: TrainingSet) -> Networks:
        return {"generate": self.drawer, "encode": self.encoder}


def archives(learner: Learner) -> tuple[EagerArchive, Any]:
    eager = EagerArchive(learner.networks((torch.empty(0), torch.empty(0)))).eval()
    return eager, open_archive(script(eager))


def test_golden_labels_are_those_of_the_images_or_the_classes_in_turn(dataset):
    golden = golden_rows(*archives(ToyLearner()), ToyLearner(), dataset)
    latents, balanced = (record.array() for record in golden["generate"].inputs)
    assert (latents.shape, balanced.tolist()) == ((4, 4), [0, 1, 2, 3])
    images, labels = (record.array() for record in golden["encode"].inputs)
    assert torch.equal((torch.from_numpy(images) * 255).round().to(torch.uint8), dataset.test_images[:4])
    assert labels.tolist() == dataset.test_labels[:4].tolist()
    assert [len(golden[name].outputs) for name in ("generate", "encode")] == [1, 2]


def test_input_images_are_resized_to_the_shape_that_the_network_takes(dataset):
    learner = ToyLearner()
    learner.input_shape = (1, 14, 14)
    images, _ = input_rows(learner, dataset, "encode", 40)  # more than there are test images
    assert images.shape == (40, 1, 14, 14)
    expected = torch.nn.functional.avg_pool2d(dataset.test_images[:32] / 255, 2)
    assert torch.allclose(images[:32], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "capability"),
    [
        ({"drift": math.nan}, "generate"),
        ({"encoded_drift": 2e-3}, "encode"),
    ],
)
def test_an_archive_that_differs_from_the_trained_network_is_refused(dataset, options, capability):
    learner = ToyLearner(**options)
    with pytest.raises(ExportMismatch, match=f"^{capability} .* differs"):
        golden_rows(*archives(learner), learner, dataset)

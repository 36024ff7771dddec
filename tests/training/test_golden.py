"""Golden cases and deviations of archives that take labels or fit a prior; the export's own are in its tests."""

import json

import pytest
import torch
from torch import Tensor, nn

from app.checkpoints.manifest import with_checksum
from app.checkpoints.store import load_model
from app.inference.runtime import Runtime
from tests.labelled import DIGITS, LATENT_DIM, ConditionalGan, ConditionalVae, FittedVae, write
from training.agreement import deviation, golden_cases
from training.families.family import Learner
from training.torchscript import script


class LabelledLearner(Learner):
    """Ships one of the tiny archives that take labels."""

    batches_per_step, latent_dim, sampling = 1, LATENT_DIM, ("temperature",)

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.conditional = not hasattr(module, "prior")
        self.priors = ("normal",) if self.conditional else ("fitted", "normal")

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def archive(self, training_set=None) -> nn.Module:
        return self.module

    def fast_archive(self, archive: nn.Module, dtype: torch.dtype) -> nn.Module:
        return archive


@pytest.mark.parametrize("module", [ConditionalGan(10), ConditionalVae(10), FittedVae(10)], ids=type)
def test_golden_cases_hold_labels_where_a_capability_takes_them_and_the_service_loads_them(module, dataset, tmp_path):
    learner = LabelledLearner(module.eval())
    _, archive = script(module)
    cases = golden_cases(module, archive, learner, dataset)
    for capability, golden in cases.items():
        assert len(golden.inputs) == (2 if learner.conditional or capability == "prior" else 1)
        for labels in golden.inputs[1:]:
            of_images = capability in {"encode", "discriminate"}
            expected = dataset.test_labels[:4].tolist() if of_images else [0, 1, 2, 3]
            assert labels.array().tolist() == expected
    directory = write(tmp_path, "labelled", module, DIGITS, priors=learner.priors)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["golden"] = {name: golden.model_dump(mode="json") for name, golden in cases.items()}
    (directory / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    assert set(load_model(directory / "manifest.json", Runtime("cpu"), 8).networks) == set(cases)


@pytest.mark.parametrize("module", [ConditionalGan(10), FittedVae(10)], ids=type)
def test_the_deviation_of_a_model_with_labels_is_that_of_its_images_of_every_class(module):
    _, reference = script(module)
    assert deviation(reference, reference, LabelledLearner(module), 10, 0, 64) == (0, 0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.01)
    _, lower = script(module)
    largest, mean = deviation(reference, lower, LabelledLearner(module), 10, 0, 64)
    assert 0 < mean < largest < 0.5

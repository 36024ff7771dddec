"""The evaluation protocol on archives of known quality."""

import math

import pytest
import torch
from torch import Tensor, nn

from training.evaluation.eval_protocol import (
    TEMPERATURES,
    TRUNCATIONS,
    measure_quality,
    real_images,
    useless_images,
)

FEATURE_FIGURES = {
    "frechet_distance",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "class_balance",
    "confidence",
}
COPY_FIGURES = {"nearest_training_distance", "near_copies"}
AUTOENCODING_FIGURES = {"negative_elbo", "reconstruction_error", "kl_divergence", "active_units"}


class Copyist(nn.Module):
    """Generates the given images, by label or one after the other."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.images, self.done = images / 255, 0

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            return self.images[labels]
        places = (self.done + torch.arange(len(latents))) % len(self.images)
        self.done += len(latents)
        return self.images[places]


class Painter(nn.Module):
    """A VAE whose first latent dimension sets the grey of the image; the others are unused."""

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.mean = mean

    def generate(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents[:, :1, None, None]).expand(-1, 1, 28, 28)

    decode = generate

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(images), 16), self.mean), torch.zeros(len(images), 16)


@pytest.fixture
def generator(manifest):
    """The manifest of a model that only generates."""
    update = {"capabilities": ("generate",), "sampling": ()}
    return manifest.model_copy(update=update)


def test_the_test_images_themselves_are_perfect_in_every_figure(digits, extractor, generator):
    figures = measure_quality(Copyist(digits.test_images), generator, digits, extractor).figures
    assert set(figures) == FEATURE_FIGURES | COPY_FIGURES
    assert figures["frechet_distance"].value == pytest.approx(0, abs=1e-4)
    for name in ("precision", "recall", "coverage"):
        assert figures[name].value == 1
    assert figures["class_balance"].value == pytest.approx(1)
    assert figures["kernel_distance"].value < 0.01 * figures["kernel_distance"].ceilings["noise"]
    for name in FEATURE_FIGURES:
        assert figures[name].deviation == pytest.approx(0, abs=1e-9)


def test_training_images_get_the_floor_and_noise_its_ceiling(digits, extractor, generator):
    train = measure_quality(Copyist(real_images(digits, 90)), generator, digits, extractor).figures
    noise = measure_quality(Copyist(useless_images(digits, 90)["noise"]), generator, digits, extractor).figures
    for name in FEATURE_FIGURES:
        assert train[name].value == pytest.approx(train[name].floor, abs=1e-6)
        assert noise[name].value == pytest.approx(noise[name].ceilings["noise"], rel=1e-6)
    assert train["frechet_distance"].value < min(train["frechet_distance"].ceilings.values())


def test_copies_of_training_images_are_detected(dataset, generator):
    copies = measure_quality(Copyist(dataset.train_images), generator, dataset, None).figures
    others = measure_quality(Copyist(dataset.test_images), generator, dataset, None).figures
    for name in COPY_FIGURES:
        assert copies[name].value == copies[name].ceilings["training_images"] != copies[name].floor
        assert others[name].value == pytest.approx(others[name].floor)


def test_label_agreement_compares_requested_and_predicted_labels(digits, extractor, generator):
    conditional = generator.model_copy(update={"conditional": True})
    pictures = digits.test_images[:10]
    right = measure_quality(Copyist(pictures), conditional, digits, extractor).figures["label_agreement"]
    assert right.value == 1
    assert right.floor == extractor.record.test_accuracy
    assert right.ceilings == {"chance": 0.1}
    wrong = measure_quality(Copyist(pictures.roll(1, 0)), conditional, digits, extractor).figures["label_agreement"]
    assert wrong.value == 0


def test_the_capabilities_determine_the_figures(dataset, manifest):
    for capabilities, names in {
        ("generate", "discriminate"): COPY_FIGURES,
        ("encode", "decode"): AUTOENCODING_FIGURES,
        ("encode",): set(),
        ("embed",): set(),
        ("generate", "decode", "encode"): COPY_FIGURES | AUTOENCODING_FIGURES,
    }.items():
        partial = manifest.model_copy(update={"capabilities": capabilities})
        quality = measure_quality(Painter(), partial, dataset, None)
        assert set(quality.figures) == names
        assert (quality.protocol, quality.extractor, quality.controls) == ("strokes-eval-1", None, ())


def test_the_deviation_is_that_over_the_seeds(dataset, manifest):
    single = [measure_quality(Painter(), manifest, dataset, None, (seed,)).figures for seed in (4, 5, 6)]
    figures = measure_quality(Painter(), manifest, dataset, None, (4, 5, 6)).figures
    for name in ("nearest_training_distance", "reconstruction_error"):
        values = [measured[name].value for measured in single]
        mean = sum(values) / 3
        assert len(set(values)) == 3
        assert figures[name].value == pytest.approx(mean)
        assert figures[name].deviation == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 2))
        assert single[0][name].deviation is None


def test_the_divergence_and_the_mean_image_are_those_of_the_formulas(dataset, manifest):
    figures = measure_quality(Painter(mean=0.5), manifest, dataset, None).figures
    assert figures["kl_divergence"].value == pytest.approx(16 * 0.5 * 0.25, rel=1e-5)
    assert figures["active_units"].value == 0
    total = figures["reconstruction_error"].value + figures["kl_divergence"].value
    assert figures["negative_elbo"].value == pytest.approx(total)
    floor, ceiling = figures["negative_elbo"].floor, figures["negative_elbo"].ceilings["mean_image"]
    assert floor is not None
    assert 0 < floor < ceiling


def test_a_model_of_binarised_images_gets_a_bound_on_its_likelihood(dataset, manifest):
    config = manifest.training.config | {"binarised": True}
    record = manifest.training.model_copy(update={"config": config})
    figures = measure_quality(Painter(), manifest.model_copy(update={"training": record}), dataset, None).figures
    bound = figures["importance_weighted_bound"]
    assert bound.value < figures["negative_elbo"].value
    assert bound.standard_error
    assert bound.unit == "nats an image, 32 images, 500 samples each"
    same = figures["negative_elbo_of_these_images"]
    assert bound.value < same.value
    assert same.value == pytest.approx(figures["negative_elbo"].value, rel=0.1)
    assert same.unit == "nats an image, 32 images"
    assert figures["negative_elbo"].unit == "nats an image"
    assert figures["negative_elbo"].floor is None


def test_all_sampling_controls_of_a_model_are_measured(digits, extractor, manifest):
    cold = manifest.model_copy(update={"sampling": ("temperature",)})
    effects = measure_quality(Painter(), cold, digits, extractor).controls
    assert [(effect.prior, effect.temperature, effect.truncation) for effect in effects] == [
        ("normal", temperature, None) for temperature in TEMPERATURES
    ]
    cut = manifest.model_copy(update={"sampling": ("truncation",)})
    effects = measure_quality(Painter(), cut, digits, extractor).controls
    assert [(effect.temperature, effect.truncation) for effect in effects] == [(1.0, bound) for bound in TRUNCATIONS]
    assert len({effect.figures["frechet_distance"] for effect in effects}) == len(TRUNCATIONS)

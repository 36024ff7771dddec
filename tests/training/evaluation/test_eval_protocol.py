"""The evaluation protocol on archives of known quality."""

import math
import statistics

import pytest
import torch
from torch import Tensor, nn

from app.checkpoints.manifest import ImageForm
from training.data import to_unit_range
from training.evaluation.binarisation import fixed_binarisation
from training.evaluation.elbo import importance_weighted_bound
from training.evaluation.eval_protocol import PROTOCOL, TEMPERATURES, TRUNCATIONS, measure_quality
from training.evaluation.reference import ceiling_images, real_draws
from training.evaluation.resizing import area_averages

FEATURE_FIGURES = {
    "frechet_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "class_balance",
}
COPY_FIGURES = {"nearest_training_distance", "near_copies"}
LABEL_FIGURES = {"label_agreement", "classification_accuracy_score"}
ELBO_FIGURES = {"negative_elbo", "reconstruction_error", "kl_divergence", "active_units", "importance_weighted_bound"}
RECONSTRUCTION_FIGURES = {"mean_squared_error", "cross_entropy_of_reconstructions"}


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

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None].logit().expand(-1, 16)

    def prior(self, noise: Tensor, labels: Tensor) -> Tensor:
        return noise[:, :-1] + labels[:, None]


class Labelled(nn.Module):
    """A conditional VAE that ignores images and labels."""

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        assert latents.shape[:1] == labels.shape
        return torch.full((len(latents), 1, 28, 28), 0.5)

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert images.shape[:1] == labels.shape
        return torch.zeros(len(images), 16), torch.zeros(len(images), 16)


@pytest.fixture
def generator(manifest):
    """The manifest of a model that only generates."""
    update = {"capabilities": ("generate",), "sampling": ()}
    return manifest.model_copy(update=update)


def test_the_test_images_themselves_are_perfect_in_every_figure(digits, reference, generator):
    quality = measure_quality(Copyist(digits.test_images), generator, reference)
    figures = quality.figures
    assert quality.protocol == PROTOCOL
    assert set(figures) == FEATURE_FIGURES | COPY_FIGURES
    assert figures["frechet_distance"].value == pytest.approx(0, abs=1e-4)
    for name in ("precision", "recall", "coverage"):
        assert figures[name].value == 1
    assert figures["class_balance"].value == pytest.approx(1)
    for name in FEATURE_FIGURES:
        assert figures[name].deviation == pytest.approx(0, abs=1e-9)


def test_training_images_are_as_good_as_one_draw_of_the_floor_and_noise_as_its_ceiling(digits, reference, generator):
    rows = real_draws(digits.train_labels, 90, balanced=False)[0]
    train = measure_quality(Copyist(digits.train_images[rows]), generator, reference).figures
    noise = measure_quality(Copyist(ceiling_images(digits, 90)["noise"]), generator, reference).figures
    draw = reference.floors(balanced=False)[0]
    for name in FEATURE_FIGURES:
        assert train[name].value == pytest.approx(draw[name], abs=1e-6)
        assert noise[name].value == pytest.approx(noise[name].ceilings["noise"], rel=1e-6)
    assert train["frechet_distance"].value < train["frechet_distance"].ceilings["noise"]


@pytest.mark.parametrize("balanced", [True, False])
def test_the_floor_has_labels_as_the_generated_images_and_its_deviation_over_the_draws(
    digits, reference, generator, balanced
):
    model = generator.model_copy(update={"conditional": balanced})
    figures = measure_quality(Copyist(digits.test_images), model, reference).figures
    for name in FEATURE_FIGURES:
        draws = [figures_of_draw[name] for figures_of_draw in reference.floors(balanced=balanced)]
        assert len(draws) == 2
        assert figures[name].floor == pytest.approx(statistics.fmean(draws))
        assert figures[name].floor_deviation == pytest.approx(statistics.stdev(draws))


def test_a_model_with_two_priors_gets_figures_of_both_with_the_floors_of_their_labels(reference, manifest):
    update = {"capabilities": ("generate", "prior"), "priors": ("fitted", "normal"), "noise_dim": 17}
    figures = measure_quality(Painter(), manifest.model_copy(update=update), reference).figures
    normal = {f"normal_prior_{name}" for name in ("frechet_distance", "precision", "recall")}
    assert set(figures) == FEATURE_FIGURES | COPY_FIGURES | LABEL_FIGURES | normal
    for name, balanced in (("frechet_distance", True), ("normal_prior_frechet_distance", False)):
        draws = [draw["frechet_distance"] for draw in reference.floors(balanced=balanced)]
        assert figures[name].floor == pytest.approx(statistics.fmean(draws))
    plain = manifest.model_copy(update={"capabilities": ("generate",)})
    expected = measure_quality(Painter(), plain, reference).figures["frechet_distance"]
    assert figures["normal_prior_frechet_distance"] == expected


def test_copies_of_training_images_are_detected(dataset, strokes, generator):
    copies = measure_quality(Copyist(dataset.train_images), generator, strokes).figures
    others = measure_quality(Copyist(dataset.test_images), generator, strokes).figures
    for name in COPY_FIGURES:
        assert copies[name].value == copies[name].ceilings["training_images"] != copies[name].floor
        assert others[name].value == pytest.approx(others[name].floor)


def test_images_of_another_size_are_compared_with_area_averages_in_pixels_only(digits, reference, generator):
    small = generator.model_copy(update={"image": ImageForm(shape=(1, 7, 7), normalization=None)})
    quality = measure_quality(Copyist(area_averages(digits.train_images[:192], (1, 7, 7))), small, reference)
    assert (quality.protocol, quality.extractor) == (PROTOCOL, None)
    assert set(quality.figures) == COPY_FIGURES
    assert quality.figures["nearest_training_distance"].value == 0
    assert quality.figures["near_copies"].unit == "fraction, at 7x7"


def test_label_agreement_compares_requested_and_predicted_labels(digits, reference, generator):
    conditional = generator.model_copy(update={"conditional": True})
    pictures = digits.test_images[:10]
    figures = measure_quality(Copyist(pictures), conditional, reference).figures
    right = figures["label_agreement"]
    assert right.value == 1
    assert right.floor == pytest.approx(statistics.fmean(reference.label_agreements))
    assert right.floor_deviation == pytest.approx(statistics.stdev(reference.label_agreements))
    assert right.ceilings == {"chance": 0.1}
    assert figures["classification_accuracy_score"].floor == pytest.approx(
        statistics.fmean(reference.trained_accuracies)
    )
    wrong = measure_quality(Copyist(pictures.roll(1, 0)), conditional, reference).figures["label_agreement"]
    assert wrong.value == 0


def test_the_capabilities_determine_the_figures(strokes, manifest):
    for capabilities, names in {
        ("generate", "discriminate"): COPY_FIGURES,
        ("encode", "decode"): ELBO_FIGURES | RECONSTRUCTION_FIGURES,
        ("embed", "decode"): RECONSTRUCTION_FIGURES,
        ("encode",): set(),
        ("embed",): set(),
        ("generate", "decode", "encode"): COPY_FIGURES | ELBO_FIGURES | RECONSTRUCTION_FIGURES,
    }.items():
        partial = manifest.model_copy(update={"capabilities": capabilities})
        quality = measure_quality(Painter(), partial, strokes)
        assert set(quality.figures) == names
        assert (quality.protocol, quality.extractor, quality.controls) == ("strokes-eval-2", None, ())


def test_the_deviation_is_that_over_the_seeds(strokes, manifest):
    single = [measure_quality(Painter(), manifest, strokes, (seed,)).figures for seed in (4, 5, 6)]
    figures = measure_quality(Painter(), manifest, strokes, (4, 5, 6)).figures
    for name in ("nearest_training_distance", "reconstruction_error"):
        values = [measured[name].value for measured in single]
        mean = sum(values) / 3
        assert len(set(values)) == 3
        assert figures[name].value == pytest.approx(mean)
        assert figures[name].deviation == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 2))
        assert single[0][name].deviation is None


def test_the_divergence_and_the_mean_image_are_those_of_the_formulas(strokes, manifest):
    figures = measure_quality(Painter(mean=0.5), manifest, strokes).figures
    assert figures["kl_divergence"].value == pytest.approx(16 * 0.5 * 0.25, rel=1e-5)
    assert figures["kl_divergence"].standard_error == pytest.approx(0, abs=1e-6)
    assert figures["kl_divergence"].deviation is None
    assert figures["active_units"].value == 0
    total = figures["reconstruction_error"].value + figures["kl_divergence"].value
    assert figures["negative_elbo"].value == pytest.approx(total)
    floor, ceiling = figures["negative_elbo"].floor, figures["negative_elbo"].ceilings["mean_image"]
    assert floor is not None
    assert 0 < floor < ceiling


@pytest.mark.parametrize(("capabilities", "grey"), [(("decode", "encode"), 0.5), (("decode", "embed"), None)])
def test_the_error_of_a_reconstruction_is_that_of_the_posterior_mean_or_of_the_code(
    dataset, strokes, manifest, capabilities, grey
):
    images = to_unit_range(dataset.test_images).double()
    decoded = images.mean(dim=(1, 2, 3), keepdim=True) if grey is None else torch.tensor(grey)
    figures = measure_quality(Painter(), manifest.model_copy(update={"capabilities": capabilities}), strokes).figures
    error = figures["mean_squared_error"]
    assert error.value == pytest.approx(float((images - decoded).square().mean()), rel=1e-4)
    entropy = -(images * decoded.log() + (1 - images) * (1 - decoded).log()).sum() / len(images)
    assert figures["cross_entropy_of_reconstructions"].value == pytest.approx(float(entropy), rel=1e-4)
    mean_image = to_unit_range(dataset.train_images).double().mean(dim=0)
    assert error.ceilings == {"mean_image": pytest.approx(float((images - mean_image).square().mean()), rel=1e-4)}


def test_the_unit_of_the_elbo_of_a_conditional_model_says_that_the_label_is_given(strokes, manifest):
    update = {"conditional": True, "capabilities": ("decode", "encode")}
    figures = measure_quality(Labelled(), manifest.model_copy(update=update), strokes).figures
    for name in (ELBO_FIGURES | RECONSTRUCTION_FIGURES) - {"active_units"}:
        assert figures[name].unit.endswith("given the label"), name


def test_the_bound_on_the_likelihood_is_of_the_binarised_images(dataset, strokes, manifest):
    figures = measure_quality(Painter(), manifest, strokes, (7, 8, 9)).figures
    images, source = fixed_binarisation(dataset.test_images), torch.Generator().manual_seed(7)
    bounds = importance_weighted_bound(Painter(), manifest, images, dataset.test_labels, 50, source)
    assert figures["importance_weighted_bound"].value == pytest.approx(float(bounds.mean()))
    assert figures["importance_weighted_bound"].unit == "nats an image, 50 samples each"


def test_all_sampling_controls_of_a_model_are_measured(reference, manifest):
    cold = manifest.model_copy(update={"sampling": ("temperature",)})
    effects = measure_quality(Painter(), cold, reference).controls
    assert [(effect.prior, effect.temperature, effect.truncation) for effect in effects] == [
        ("normal", temperature, None) for temperature in TEMPERATURES
    ]
    cut = manifest.model_copy(update={"sampling": ("truncation",)})
    effects = measure_quality(Painter(), cut, reference).controls
    assert [(effect.temperature, effect.truncation) for effect in effects] == [(1.0, bound) for bound in TRUNCATIONS]
    assert len({effect.figures["frechet_distance"] for effect in effects}) == len(TRUNCATIONS)


def test_the_sampling_controls_of_a_sequential_model_are_not_measured(reference, manifest):
    slow = manifest.model_copy(update={"sampling": ("temperature",), "sequential": True})
    quality = measure_quality(Painter(), slow, reference)
    assert quality.controls == ()
    assert "frechet_distance" in quality.figures

"""The protocol `held-out-1`: an archive against test images it never saw. Knows capabilities only.

Every figure is measured on the exported archive and stands between a floor, what a perfect model
would get, and a ceiling, what a useless one gets, both measured on the same data.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.checkpoints.manifest import Capability, Figure, Quality
from training.data import Dataset, to_unit_range

PROTOCOL = "held-out-1"
TWO_SAMPLE_IMAGES = 2_000
BATCH = 500


@torch.no_grad()
def evaluate(
    archive: nn.Module, capabilities: tuple[Capability, ...], latent_dim: int, dataset: Dataset, seed: int
) -> Quality:
    """Measure what the archive's capabilities allow. The same seed gives the same figures."""
    source = torch.Generator().manual_seed(seed)
    figures: dict[str, Figure] = {}
    if "generate" in capabilities:
        figures["nearest_neighbour_accuracy"] = two_sample_figure(archive, latent_dim, dataset, source)
    if "encode" in capabilities and "decode" in capabilities:
        figures |= elbo_figures(archive, dataset, source)
    return Quality(protocol=PROTOCOL, figures=figures)


def two_sample_figure(archive: nn.Module, latent_dim: int, dataset: Dataset, source: torch.Generator) -> Figure:
    """How well a nearest-neighbour classifier on pixels tells generated from test images."""
    count = min(TWO_SAMPLE_IMAGES, len(dataset.test_images), len(dataset.train_images))
    latents = torch.randn(count, latent_dim, generator=source)
    generated = torch.cat([archive.generate(rows) for rows in torch.split(latents, BATCH)])  # type: ignore[operator]
    generated = (generated * 255).round() / 255
    test = to_unit_range(dataset.test_images[:count])
    train = to_unit_range(dataset.train_images[:count])
    noise = torch.rand(test.shape, generator=source)
    return Figure(
        value=nearest_neighbour_accuracy(generated, test),
        unit="fraction",
        floor=nearest_neighbour_accuracy(train, test),
        ceiling=nearest_neighbour_accuracy(noise, test),
    )


def nearest_neighbour_accuracy(ours: Tensor, theirs: Tensor) -> float:
    """Leave-one-out accuracy of a 1-nearest-neighbour classifier between two sets of images.

    Shapes: `(N, 1, H, W)` twice. 0.5 where they are samples of one distribution; towards 1 where they
    are not; under 0.5 where the one copies the other. Source: D. Lopez-Paz, M. Oquab, "Revisiting
    Classifier Two-Sample Tests", 2017, arXiv:1610.06545.
    """
    rows = torch.cat([ours, theirs]).flatten(1)  # (2N, pixels)
    distances = torch.cdist(rows, rows)
    distances.fill_diagonal_(torch.inf)
    is_ours = torch.arange(len(rows)) < len(ours)
    return float((is_ours[distances.argmin(dim=1)] == is_ours).double().mean())


def elbo_figures(archive: nn.Module, dataset: Dataset, source: torch.Generator) -> dict[str, Figure]:
    """Negative ELBO of the test images and its two parts, one posterior sample an image.

    In nats an image, on grey pixels: a loss, not a likelihood. Its floor is the entropy of the
    pixels at no KL divergence, its ceiling what the mean training image reconstructs at none.
    """
    errors, divergences = [], []
    for batch in torch.split(dataset.test_images, BATCH):
        images = to_unit_range(batch)
        mean, log_variance = archive.encode(images)  # type: ignore[operator]
        noise = torch.randn(mean.shape, generator=source)
        decoded = archive.decode(mean + torch.exp(0.5 * log_variance) * noise)  # type: ignore[operator]
        errors.append(cross_entropy(decoded, images))
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).double().sum(dim=1)
        divergences.append(kl)
    error, divergence = float(torch.cat(errors).mean()), float(torch.cat(divergences).mean())
    test = to_unit_range(dataset.test_images)
    floor = float(cross_entropy(test, test).mean())
    mean_image = to_unit_range(dataset.train_images).mean(dim=0, keepdim=True)
    ceiling = float(cross_entropy(mean_image.expand_as(test), test).mean())
    unit = "nats an image"
    return {
        "negative_elbo": Figure(value=error + divergence, unit=unit, floor=floor, ceiling=ceiling),
        "reconstruction_error": Figure(value=error, unit=unit, floor=floor, ceiling=ceiling),
        "kl_divergence": Figure(value=divergence, unit=unit, floor=0, ceiling=ceiling - floor),
    }


def cross_entropy(probabilities: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy in nats an image, summed over pixels: `(N, 1, H, W)` twice to `(N,)`."""
    losses = functional.binary_cross_entropy(probabilities.double(), images.double(), reduction="none")
    return losses.flatten(1).sum(dim=1)

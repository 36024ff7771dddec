"""Likelihood figures of variational autoencoders: ELBO, active units, importance-weighted bound.

`encode` gives the mean and the log-variance of q(z|x), `decode` the Bernoulli parameter of each pixel. Bounds are in
nats per image. They bound a likelihood only for pixels of 0 or 1: on grey pixels the cross-entropy is a loss whose
minimum is the entropy of the pixels and not 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.data import batches
from training.generation import Form, with_labels

BATCH = 500
# A parameter that float32 rounds to 0 or 1 would make a pixel impossible: the decoder is clamped.
MIN_PIXEL_PROBABILITY = 1e-6
# Least variance of the posterior mean of an active latent dimension. Source: see `active_units`.
ACTIVE = 0.01


@dataclass(frozen=True)
class Elbo:
    """Both terms for each image, float64 `(N,)`, in nats."""

    reconstruction_error: Tensor
    kl_divergence: Tensor

    @property
    def negative(self) -> Tensor:
        """The negative ELBO, the sum of the two."""
        return self.reconstruction_error + self.kl_divergence


@torch.no_grad()
def elbo(archive: Any, form: Form, images: Tensor, labels: Tensor, source: torch.Generator) -> Elbo:
    """Both terms of the ELBO of images `(N, 1, H, W)` in [0, 1], one posterior sample each.

    Source: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv:1312.6114, equations 7 and 10.
    """
    errors, divergences = [], []
    for rows, wanted in batches(BATCH, images, labels):
        mean, log_variance = archive.encode(*with_labels(form, rows, wanted))
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=source)
        errors.append(cross_entropy(archive.decode(*with_labels(form, latents, wanted)), rows))
        divergences.append(-0.5 * (1 + log_variance - mean.square() - log_variance.exp()).double().sum(dim=1))
    return Elbo(torch.cat(errors), torch.cat(divergences))


@torch.no_grad()
def active_units(archive: Any, form: Form, images: Tensor, labels: Tensor) -> int:
    """The number of latent dimensions whose posterior mean has a variance above `ACTIVE`.

    Source: Y. Burda et al., "Importance Weighted Autoencoders", 2016, arXiv:1509.00519, section 5.2.
    """
    means = torch.cat(
        [archive.encode(*with_labels(form, rows, wanted))[0] for rows, wanted in batches(BATCH, images, labels)]
    )
    return int((means.double().var(dim=0) > ACTIVE).sum())


@torch.no_grad()
def importance_weighted_bound(
    archive: Any, form: Form, images: Tensor, labels: Tensor, samples: int, source: torch.Generator
) -> Tensor:
    """Upper bounds on -log p(x) of binary images `(N, 1, H, W)`, in nats, float64 `(N,)`.

    -log of the mean over `samples` latents from q(z|x) of p(x|z) p(z) / q(z|x). With one sample it is the negative
    ELBO; more samples make it tighter. Source: see `active_units`, equation 8.
    """
    bounds = []
    for rows, wanted in batches(max(BATCH // samples, 1), images, labels):
        mean, log_variance = archive.encode(*with_labels(form, rows, wanted))
        noise = torch.randn(len(rows), samples, mean.shape[1], generator=source)
        latents = mean[:, None] + torch.exp(0.5 * log_variance)[:, None] * noise
        repeated = with_labels(form, latents.flatten(0, 1), wanted.repeat_interleave(samples))
        targets = rows.repeat_interleave(samples, dim=0)
        likelihoods = -cross_entropy(archive.decode(*repeated), targets).view(len(rows), samples)
        # log p(z) - log q(z|x); their constants are equal.
        ratios = 0.5 * (noise.square() + log_variance[:, None] - latents.square()).double().sum(dim=2)
        bounds.append(math.log(samples) - (likelihoods + ratios).logsumexp(dim=1))
    return torch.cat(bounds)


def cross_entropy(probabilities: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy, summed over pixels: `(N, 1, H, W)` twice to float64 `(N,)`."""
    clamped = probabilities.double().clamp(MIN_PIXEL_PROBABILITY, 1 - MIN_PIXEL_PROBABILITY)
    return functional.binary_cross_entropy(clamped, images.double(), reduction="none").flatten(1).sum(dim=1)

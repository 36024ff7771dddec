"""Runs that have gone wrong for good: losses that are no numbers, generators of a few images. Knows no family."""

import math

import torch
from torch import Tensor, nn

from training.config import TrainConfig

# The spread of a model's images over that of the training images was 0.83 to 0.97 for the models that ship, and 0.4
# for a vae and a gan after 25 steps. Under this share all images are one.
LEAST_SPREAD = 0.1
# The same of their separation was 0.79 to 1.09, and 0.59 to 1.10 after the first epoch. Ten images over and over have
# 0, and 0.08 with a noise of 5 in 255 on them. Recall would not do: it was 0.001 after the first epoch of a vae.
LEAST_SEPARATION = 0.1
# A decoder starts with one grey image, and a cvae's images of a class have a spread of 0.08 after 100 steps and 0.4
# after 200: it means nothing before a model has learned for a while.
FIRST_JUDGED_STEP = 800


class Diverged(Exception):
    """Going on would learn nothing. The message names what was measured and what to change."""


def check_losses(config: TrainConfig, losses: dict[str, float], epoch: int, step: int) -> None:
    """Raises Diverged where a loss is not finite."""
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(f"{', '.join(bad)} at step {step} of epoch {epoch}. {advice(config)}")


def check_weights(config: TrainConfig, learner: nn.Module) -> None:
    """Raises Diverged where a weight or an average is not finite, which no state may hold."""
    for name, tensor in learner.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Diverged(f"the weights {name} are not finite. {advice(config)}")


def spread(images: Tensor) -> float:
    """The standard deviation over images, averaged over pixels: uint8 `(N, 1, H, W)` to [0, 0.5]; 0 for equal ones."""
    return float((images.float() / 255).std(dim=0, correction=0).mean())


def spread_within(images: Tensor, labels: Tensor) -> float:
    """The spread of each class's images, averaged over the classes of two images and more; 0 where there are none.

    Labels int64 `(N,)`. A model that makes one image of each class has no other spread than that of its classes.
    """
    groups = [images[labels == label] for label in torch.unique(labels)]
    spreads = [spread(group) for group in groups if len(group) > 1]
    return sum(spreads) / max(len(spreads), 1)


def separation(images: Tensor) -> float:
    """The mean Euclidean distance from each image to the nearest other one: uint8 `(N, 1, H, W)`, pixels as 0 to 1.

    It is 0 where every image is there twice, however many different ones there are. N is 2 or more.
    """
    rows = images.flatten(1).float() / 255
    # The quicker way by a product of matrices does not give equal images the distance 0.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N)
    return float(distances.fill_diagonal_(torch.inf).min(dim=1).values.mean())


def check_spread(config: TrainConfig, share: float, steps: int) -> None:
    """Raises Diverged where `share`, of the training images' spread, says that all images are one."""
    if steps >= FIRST_JUDGED_STEP and not share >= LEAST_SPREAD:
        raise Diverged(
            f"the generator has collapsed: the spread of its images over their pixels is {share:.3f} of the training "
            f"images' after {steps} steps, {LEAST_SPREAD} is the least. {advice(config)}"
        )


def check_separation(config: TrainConfig, share: float, steps: int) -> None:
    """Raises Diverged where `share`, of the training images' separation, says that a few images come over and over."""
    if steps >= FIRST_JUDGED_STEP and not share >= LEAST_SEPARATION:
        raise Diverged(
            "the generator has collapsed to a few images: the mean distance from one to the nearest other is "
            f"{share:.3f} of the training images' after {steps} steps, {LEAST_SEPARATION} is the least. "
            f"{advice(config)}"
        )


def advice(config: TrainConfig) -> str:
    """What a person can do about it, by the flags of the family."""
    rates = [f"--{name.replace('_', '-')}" for name in type(config).model_fields if name.endswith("learning_rate")]
    flags = [f"a lower {' or '.join(rates)}"] if rates else []
    flags += ["another --seed"] + ([] if config.precision == "float32" else ["--precision float32"])
    kept = "The last saved state is kept. " if (config.run_dir / "state.pt").is_file() else ""
    return f"{kept}Train anew with {', or '.join(flags)}"

"""Detection of runs that cannot recover: losses that are not finite, and mode collapse."""

import math

import torch
from torch import Tensor, nn

from training.config import TrainConfig

# Shares of the training images' spread and separation, below which a model has collapsed. When they were
# chosen, the spread of the shipped models was 0.83 to 0.97, and that of a vae and a gan after 25 steps 0.4.
LEAST_SPREAD = 0.1
# The separation of the shipped models was 0.79 to 1.09, and 0.59 to 1.10 after the first epoch; that of ten repeated
# images is 0, or 0.08 with noise of 5 / 255. Recall is no alternative: after a vae's first epoch it was 0.001.
LEAST_SEPARATION = 0.1
# Untrained models have no spread either: a cvae's within a class is 0.08 after 100 steps and 0.4 after 200.
FIRST_JUDGED_STEP = 800


class Diverged(Exception):
    """Training cannot recover. The message says what was measured and what to change."""


def check_losses(config: TrainConfig, losses: dict[str, float], epoch: int, step: int) -> None:
    """Raises Diverged if a loss is not finite."""
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(f"{', '.join(bad)} at step {step} of epoch {epoch}. {advice(config)}")


def check_weights(config: TrainConfig, learner: nn.Module) -> None:
    """Raises Diverged if a weight or an average is not finite; such a state must not be saved."""
    for name, tensor in learner.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Diverged(f"the weights {name} are not finite. {advice(config)}")


def spread(images: Tensor) -> float:
    """The standard deviation over images, averaged over pixels: uint8 `(N, 1, H, W)` to [0, 0.5]; 0 if equal."""
    return float((images.float() / 255).std(dim=0, correction=0).mean())


def spread_within(images: Tensor, labels: Tensor) -> float:
    """The mean spread of the images of a class, over classes of at least two images; 0 without any.

    Labels are int64 `(N,)`. Unlike the spread, it is 0 for a conditional model that generates one image for each class.
    """
    groups = [images[labels == label] for label in torch.unique(labels)]
    spreads = [spread(group) for group in groups if len(group) > 1]
    return sum(spreads) / max(len(spreads), 1)


def separation(images: Tensor) -> float:
    """The mean Euclidean distance of an image to its nearest neighbour: uint8 `(N, 1, H, W)`, N >= 2, pixels in [0, 1].

    It is 0 if every image occurs twice.
    """
    rows = images.flatten(1).float() / 255
    # The faster matrix product would not give exactly 0 for equal images.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N)
    return float(distances.fill_diagonal_(torch.inf).min(dim=1).values.mean())


def check_collapse(config: TrainConfig, spread_share: float, separation_share: float, steps: int) -> None:
    """Raises Diverged where the generator repeats one image or a few, by shares of the training images' figures."""
    for images, figure, share, least in (
        ("one image, or one a class", "the spread of its images", spread_share, LEAST_SPREAD),
        ("a few images", "the mean distance to the nearest neighbour", separation_share, LEAST_SEPARATION),
    ):
        if steps >= FIRST_JUDGED_STEP and not share >= least:
            raise Diverged(
                f"the generator has collapsed to {images}: {figure} is {share:.3f} of the training images' "
                f"after {steps} steps, {least} is the least. {advice(config)}"
            )


def advice(config: TrainConfig) -> str:
    """Options to train again with."""
    rates = [f"--{name.replace('_', '-')}" for name in type(config).model_fields if name.endswith("learning_rate")]
    flags = [f"a lower {' or '.join(rates)}"] if rates else []
    flags += ["another --seed"] + ([] if config.precision == "float32" else ["--precision float32"])
    kept = "The last saved state is kept. " if (config.run_dir / "state.pt").is_file() else ""
    return f"{kept}Train again with {', or '.join(flags)}"

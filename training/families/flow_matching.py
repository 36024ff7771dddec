"""Flow matching in the codes of an autoencoder: a network of the velocity that carries noise to codes, for each label.

The autoencoder learns first: a VAE whose KL divergence has little weight, and whose codes also have to tell the class.
The flow then takes the place of the prior N(0, I). Codes that are not of the wanted class are rejected.

Sources: Y. Lipman et al., "Flow Matching for Generative Modeling", 2022, arXiv:2210.02747; X. Liu et al., "Flow
Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2022, arXiv:2209.03003; R. Rombach et
al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021, arXiv:2112.10752 (codes in place of pixels);
T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, arXiv:2206.00364 (scaling
of inputs and outputs); C. Lu, Y. Song, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", 2024,
arXiv:2410.11081 (angles in place of times); W. Peebles, S. Xie, "Scalable Diffusion Models with Transformers", 2022,
arXiv:2212.09748 (blocks that time and label modulate); A. Razavi et al., "Generating Diverse High-Fidelity Images with
VQ-VAE-2", 2019, arXiv:1906.00446 (rejection by a classifier).
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training import schedules
from training.archive import Networks
from training.average import Average
from training.config import EVALUATE_EVERY, NAME_PATTERN, TrainConfig
from training.families import Family
from training.families.flow import WARM_UP_STEPS
from training.families.vae import Encoder, Vae, fast_decoders
from training.families.variational import negative_elbo, posterior_sample
from training.fast_layers import ToImages, stable_rows
from training.learner import DataShape, Learner, TrainingSet, gradient_step

CODE_DIM = 32
FREQUENCIES = 32  # of the features of a time
CONDITION_DIM = 128  # of the vector that describes time and label
CLASSIFIER_WIDTH = 128


class FlowMatchingConfig(TrainConfig):
    """A flow in the codes of an autoencoder, sampled in few steps."""

    family: Literal["flow-matching"] = "flow-matching"
    name: str = Field("flow-matching", pattern=NAME_PATTERN)
    epochs: int = Field(64, ge=1)
    evaluate_every: int = Field(10, ge=0, description=EVALUATE_EVERY)
    autoencoder_epochs: int = Field(
        16, ge=1, description="in which the autoencoder learns; in the others the flow does"
    )
    learning_rate: float = Field(2e-3, gt=0, description="of the autoencoder; it falls to 0 along a cosine")
    beta: float = Field(0.05, ge=0, description="weight of the KL divergence")
    class_weight: float = Field(30.0, ge=0, description="weight of the cross-entropy of the class of a code")
    flow_learning_rate: float = Field(1e-3, gt=0, description="after the warm-up; it falls to 0 along a cosine")
    width: int = Field(512, ge=1, description="of the layers of the flow")
    blocks: int = Field(4, ge=1, description="of two layers, of the flow")
    solver_steps: int = Field(8, ge=2, le=100, description="steps from noise to a code")
    least_probability: float = Field(
        0.9, ge=0, le=1, description="of the wanted class: a less probable code is replaced by a second one"
    )


class CodeModel(nn.Module):
    """An autoencoder and a classifier of its codes, trained together."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.vae = Vae(CODE_DIM)
        self.classifier = nn.Sequential(
            nn.Linear(CODE_DIM, CLASSIFIER_WIDTH), nn.SiLU(), nn.Linear(CLASSIFIER_WIDTH, classes)
        )

    def codes(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images `(B, 1, 28, 28)` in [0, 1] to a draw of their codes, and mean and log-variance, `(B, CODE_DIM)`."""
        mean, log_variance = self.vae.encoder(images)
        return posterior_sample(mean, log_variance, torch.randn_like(mean)), mean, log_variance


class Block(nn.Module):
    """A residual block of two dense layers, which starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(CONDITION_DIM, 3 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`(B, width)` and `(B, CONDITION_DIM)`, which gives scales, shifts and gates, to the shape of the first."""
        scales, shifts, gates = self.modulation(condition).chunk(3, dim=1)
        hidden = self.inner(self.norm(x) * (1 + scales) + shifts)
        result: Tensor = x + gates * self.outer(functional.silu(hidden))
        return result


class VelocityNetwork(nn.Module):
    """The velocity of a noisy code at a time, given its label."""

    frequencies: Tensor

    def __init__(self, classes: int, width: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 2, FREQUENCIES))
        self.time = nn.Linear(2 * FREQUENCIES, CONDITION_DIM)
        self.label = nn.Embedding(classes, CONDITION_DIM)
        self.condition = nn.Linear(CONDITION_DIM, CONDITION_DIM)
        self.stem = nn.Linear(CODE_DIM, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.to_velocity = nn.Linear(width, CODE_DIM)
        nn.init.zeros_(self.to_velocity.weight)
        nn.init.zeros_(self.to_velocity.bias)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noisy codes `(B, CODE_DIM)`, times `(B, 1)` in [0, 1] and labels int64 `(B,)` to velocities like `x`.

        For codes and noise of unit variance, `2 t - 1` over the variance of `x` is the best linear predictor of the
        velocity; what remains of it, like the input of the network, is scaled to unit variance.
        """
        scale = torch.rsqrt(times.square() + (1 - times).square())
        velocities: Tensor = (2 * times - 1) * scale.square() * x + scale * self.remainder(scale * x, times, labels)
        return velocities

    def remainder(self, scaled: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """What remains of the velocities, scaled to unit variance like the noisy codes: `(B, CODE_DIM)` both."""
        phases = times * self.frequencies
        condition = self.time(torch.cat([phases.sin(), phases.cos()], dim=1)) + self.label(labels)
        condition = functional.silu(self.condition(functional.silu(condition)))
        hidden = self.stem(scaled)
        for block in self.blocks:
            hidden = block(hidden, condition)
        remainder: Tensor = self.to_velocity(self.norm(hidden)).to(scaled.dtype)
        return remainder


def on_path(noise: Tensor, codes: Tensor, times: Tensor) -> Tensor:
    """The points at `times` `(B, 1)` on straight lines from noise at 0 to codes at 1, `(B, CODE_DIM)` all.

    Eq. 22 of arXiv:2210.02747 with a smallest deviation of 0. The velocity on a line is codes - noise.
    """
    return (1 - times) * noise + times * codes


def velocity_loss(velocities: Tensor, noise: Tensor, codes: Tensor) -> Tensor:
    """The squared error of velocities, averaged over dimensions and batch: `(B, CODE_DIM)` thrice to a scalar.

    Eq. 23 of arXiv:2210.02747. Its minimum is not 0 but the variance of the lines that cross at a point.
    """
    return (velocities - (codes - noise)).square().mean()


def adams_bashforth(points: list[float], order: int) -> list[list[float]]:
    """For the step from each point to the next one, the weights of the last slopes, the newest first.

    There are `order` of them, fewer in the first steps. They integrate a polynomial through the slopes exactly.
    """
    weights = []
    for step in range(len(points) - 1):
        nodes = torch.tensor(points[max(0, step - order + 1) : step + 1], dtype=torch.float64).flip(0) - points[step]
        powers = torch.arange(len(nodes)).double()
        integrals = (points[step + 1] - points[step]) ** (powers + 1) / (powers + 1)
        weights.append(torch.linalg.solve(nodes ** powers[:, None], integrals).tolist())
    return weights


class Flow(nn.Module):
    """Noise to codes of a label: the differential equation of the velocity, solved in a fixed number of steps.

    The equation is that of `y = x / sqrt(t^2 + (1 - t)^2)`, which is noise at time 0 and a code at time 1. Its
    derivative by the angle `atan2(t, 1 - t)` is the remainder alone: the linear part of the velocity is solved exactly.
    The solver is Adams and Bashforth's of third order, which evaluates the network once a step and extrapolates from
    the last results.

    Each row of noise gives two codes, since the negated noise is as likely. The first one is taken unless the
    classifier finds it less probable than `least_probability` to be of the label, and the second one more probable.
    """

    def __init__(self, network: VelocityNetwork, classifier: nn.Module, steps: int, least_probability: float) -> None:
        super().__init__()
        self.network, self.classifier = network, classifier
        self.least_probability = least_probability
        self.weights = adams_bashforth([math.atan2(step, steps - step) for step in range(steps + 1)], order=3)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise `(B, CODE_DIM + 1)`, standard normal, and labels int64 `(B,)` to codes `(B, CODE_DIM)`.

        The last column, with which other priors choose a component, is not used.
        """
        first = noise[:, :-1]
        labels = torch.cat([labels, labels])
        codes = self.solve(torch.cat([first, -first]), labels)
        probabilities = self.classifier(codes).softmax(dim=1).gather(1, labels[:, None])
        first, second = codes.chunk(2)
        of_first, of_second = probabilities.chunk(2)
        rejected = (of_first < self.least_probability) & (of_first < of_second)
        return torch.where(rejected, second, first)

    def solve(self, y: Tensor, labels: Tensor) -> Tensor:
        """Noise `(B, CODE_DIM)` and labels `(B,)` to the codes at the ends of its paths."""
        steps = len(self.weights)
        slopes: list[Tensor] = []  # the newest first
        for step, weights in enumerate(self.weights):
            slopes.insert(0, self.network.remainder(y, torch.full_like(y[:, :1], step / steps), labels))
            for steps_back, weight in enumerate(weights):
                y = y + weight * slopes[steps_back]
        return y


class Embed(nn.Module):
    """Images `(B, 1, 28, 28)` in [0, 1] to the means of their codes `(B, CODE_DIM)`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """The variances, about a hundredth of the prior's, are dropped."""
        mean: Tensor = self.encoder(images)[0]
        return mean


class FlowMatchingLearner(Learner):
    """An autoencoder, which learns in the first epochs, and a flow of its codes, which learns in the others."""

    latent_dim = CODE_DIM
    priors = ("fitted",)
    sampling = ("temperature",)
    chooses_contrast = True

    def __init__(self, config: FlowMatchingConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        # A run that is too short for both leaves the flow its share of an epoch.
        epochs = max(config.epochs, config.autoencoder_epochs + 1)
        self.code_steps = max(1, total_steps * config.autoencoder_epochs // epochs)
        self.code_model = CodeModel(data.classes).to(memory_format=torch.channels_last)
        self.code_average = Average(self.code_model, config.ema_decay)
        self.code_optimizer = torch.optim.Adam(self.code_model.parameters(), lr=config.learning_rate)
        self.code_schedule = schedules.cosine(self.code_optimizer, self.code_steps)
        self.network = VelocityNetwork(data.classes, config.width, config.blocks)
        self.network_average = Average(self.network, config.ema_decay)
        self.flow_optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.flow_learning_rate, betas=(0.9, 0.99)
        )
        flow_steps = max(1, total_steps - self.code_steps)
        self.flow_schedule = schedules.cosine(self.flow_optimizer, flow_steps, WARM_UP_STEPS)

    @property
    def averaged(self) -> CodeModel:
        """The autoencoder and the classifier with averaged weights."""
        assert isinstance(self.code_average.module, CodeModel)
        return self.code_average.module

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step of the autoencoder or of the flow on images `(1, B, 1, 28, 28)`; the losses of the batch."""
        if self.code_schedule.last_epoch < self.code_steps:
            return self._learn_codes(images[0], labels[0])
        return self._learn_flow(images[0], labels[0])

    def _learn_codes(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        model, config = self.code_model, self.config
        with self.autocast():
            codes, mean, log_variance = model.codes(images)
            logits, classes = model.vae.decoder(codes), model.classifier(codes)
        elbo = negative_elbo(logits.float(), images, mean.float(), log_variance.float(), config.beta)
        cross_entropy = functional.cross_entropy(classes.float(), labels)
        gradient_step(self.code_optimizer, elbo + config.class_weight * cross_entropy)
        self.code_schedule.step()
        self.code_average.update_parameters(model)
        return {"negative_elbo": elbo.detach(), "cross_entropy": cross_entropy.detach()}

    def _learn_flow(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            codes, _, _ = self.averaged.codes(images)
        noise = torch.randn_like(codes)
        # One time in each of B equal parts of [0, 1]: the loss depends on the time more than on the code.
        parts = torch.arange(len(codes), device=codes.device)[:, None]
        times = (parts + torch.rand(len(codes), 1, device=codes.device)) / len(codes)
        with self.autocast():
            velocities = self.network(on_path(noise, codes, times), times, labels)
        loss = velocity_loss(velocities, noise, codes)
        gradient_step(self.flow_optimizer, loss)
        self.flow_schedule.step()
        self.network_average.update_parameters(self.network)
        return {"velocity_error": loss.detach()}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted after training
        """The averaged encoder and decoder, and the averaged flow as the prior of the codes."""
        model, network = self.averaged, self.network_average.module
        assert isinstance(network, VelocityNetwork)
        generate, decode = (nn.Sequential(model.vae.decoder, ToImages()) for _ in range(2))
        prior = Flow(network, model.classifier, self.config.solver_steps, self.config.least_probability)
        return {"generate": generate, "decode": decode, "embed": Embed(model.vae.encoder), "prior": prior}

    def fast(self, networks: Networks, dtype: torch.dtype) -> Networks:
        """The decoder rewritten, the encoder and the flow with stable rows."""
        generate, decode = fast_decoders(networks["generate"], networks["decode"], dtype)
        stable = {name: stable_rows(networks[name]) for name in ("embed", "prior")}
        return networks | {"generate": generate, "decode": decode} | stable


FAMILY = Family("flow-matching", FlowMatchingConfig, FlowMatchingLearner)

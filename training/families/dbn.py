"""Deep belief network: two restricted Boltzmann machines (RBMs), the top one with the label among its visible units.

The lower RBM learns binarised pixels. The top RBM learns the states of its hidden units joined with the label, and
replaces their prior. To generate, a Gibbs chain runs in the top RBM with its label clamped; one pass through the lower
RBM then gives the pixels.

Sources: G. Hinton, S. Osindero, Y.-W. Teh, "A Fast Learning Algorithm for Deep Belief Nets", Neural Computation 18,
2006 (the model and its greedy training); G. Hinton, "Training Products of Experts by Minimizing Contrastive
Divergence", Neural Computation 14, 2002; T. Tieleman, "Training Restricted Boltzmann Machines using Approximations to
the Likelihood Gradient", ICML 2008 (persistent chains); K. Cho, T. Raiko, A. Ilin, "Enhanced Gradient and Adaptive
Learning Rate for Training Restricted Boltzmann Machines", ICML 2011; Y. Du, I. Mordatch, "Implicit Generation and
Generalization in Energy-Based Models", 2019, arXiv:1903.08689 (restarted chains).
"""

import copy
import logging
import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from app.checkpoints.manifest import Figure
from training.archive import Networks
from training.average import Average
from training.config import EVALUATE_EVERY, NAME_PATTERN, TrainConfig
from training.data import Dataset, batches, to_unit_range
from training.evaluation.annealing import anneal, inverse_temperatures
from training.evaluation.binarisation import fixed_binarisation
from training.families import Family
from training.fast_layers import ToImages
from training.learner import DataShape, Learner, TrainingSet

log = logging.getLogger(__name__)

# Normal numbers of a latent. They only seed the chain: see `row_keys`.
LATENT_DIM = 4
# Steps of the chain from the class mean to the image.
CHAIN_STEPS = 50
# The value of the unit of the label. With the value 1, as one of 510 units, it learns too slowly and has too little
# influence.
LABEL_VALUE = 3.0
# The value of the clamped label in the chain. With that of training, 95.9 % of 10,000 images had the class of their
# label; with this one 98.2 % of 5,000.
CLAMPED_VALUE = 4.0
# Random numbers of the chain have 16 bits, two to a word of its hash.
QUANTILES = 2**16
BATCH = 1000


class DbnConfig(TrainConfig):
    """A deep belief network: two restricted Boltzmann machines, trained one after the other."""

    family: Literal["dbn"] = "dbn"
    name: str = Field("dbn", pattern=NAME_PATTERN)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # no step uses autocast
    epochs: int = Field(100, ge=1)
    evaluate_every: int = Field(25, ge=0, description=EVALUATE_EVERY)
    hidden: int = Field(500, ge=1, description="hidden units of the lower RBM")
    top_hidden: int = Field(2000, ge=1, description="hidden units of the top RBM")
    lower_share: float = Field(0.5, gt=0, lt=1, description="of all steps, in which the lower RBM learns")
    contrastive_share: float = Field(
        0.1, ge=0, le=1, description="of the steps of each RBM, with contrastive divergence; then the chains persist"
    )
    lower_learning_rate: float = Field(0.1, gt=0, description="at the start; it falls linearly to 0")
    top_learning_rate: float = Field(0.1, gt=0, description="at the start; it falls linearly to 0")
    restart_share: float = Field(
        0.02, ge=0, le=1, description="of the top RBM's chains, that start again from their class mean at each step"
    )
    weight_decay: float = Field(1e-4, ge=0, description="of the weights, not of the biases")


class Rbm(nn.Module):
    """The weights of a restricted Boltzmann machine and its conditional distributions.

    The energy of binary visible units v and hidden units h is E(v, h) = -b.v - c.h - v.W.h. The last `classes` visible
    units are a softmax group, of which exactly one is on, with the value LABEL_VALUE.
    """

    def __init__(self, visible: int, hidden: int, classes: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(visible + classes, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible + classes))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.classes = classes

    def hidden_logits(self, visible: Tensor) -> Tensor:
        """`(B, visible)` to the log-odds of each hidden unit, c + v.W, `(B, hidden)`."""
        return torch.addmm(self.hidden_bias, visible, self.weight)

    def visible_logits(self, hidden: Tensor) -> Tensor:
        """`(B, hidden)` to the log-odds of each visible unit, b + W.h, `(B, visible)`."""
        return torch.addmm(self.visible_bias, hidden, self.weight.t())

    def sample_visible(self, hidden: Tensor) -> Tensor:
        """A draw from p(v|h): `(B, hidden)` to `(B, visible)`."""
        logits = self.visible_logits(hidden)
        if self.classes == 0:
            return sample(torch.sigmoid(logits))
        units, group = logits[:, : -self.classes], logits[:, -self.classes :]
        labels = torch.multinomial(torch.softmax(LABEL_VALUE * group, dim=1), 1)[:, 0]
        return torch.cat([sample(torch.sigmoid(units)), label_units(labels, self.classes)], dim=1)


def sample(probabilities: Tensor) -> Tensor:
    """Independent bits as 0 and 1, of the shape of their probabilities, from the global random state."""
    return (torch.rand_like(probabilities) < probabilities).to(probabilities.dtype)


def label_units(labels: Tensor, classes: int) -> Tensor:
    """Labels int64 `(B,)` to the states of their units, float32 `(B, classes)`: 0 and one LABEL_VALUE a row."""
    return LABEL_VALUE * functional.one_hot(labels, classes).float()


def row_means(rows: Tensor, labels: Tensor) -> Tensor:
    """Each row replaced by the mean of the rows of its class: `(B, width)` and labels `(B,)` to `(B, width)`."""
    alike = (labels[:, None] == labels).float()
    return alike @ rows / alike.sum(dim=1, keepdim=True)


def free_energy(visible: Tensor, visible_bias: Tensor, hidden_logits: Tensor) -> Tensor:
    """F(v) = -log sum over h of exp(-E(v, h)) = -b.v - sum over j of log(1 + exp(c_j + (v.W)_j)), in nats.

    Shapes: `(B, visible)`, `(visible,)`, `(B, hidden)` to `(B,)`. -log p(v) = F(v) + log Z.
    """
    return -(visible @ visible_bias) - functional.softplus(hidden_logits).sum(dim=1)


class Phase(NamedTuple):
    """States of an RBM that come from data or from the model itself."""

    visible: Tensor  # (B, visible)
    hidden_logits: Tensor  # (B, hidden), given `visible`


class Gradient(NamedTuple):
    """By parameter of an `Rbm`, in the order of its parameters."""

    weight: Tensor  # (visible, hidden)
    visible_bias: Tensor  # (visible,)
    hidden_bias: Tensor  # (hidden,)


def enhanced_gradient(data: Phase, model: Phase) -> Gradient:
    """An ascent direction of the mean log-likelihood in which it does not matter which state of a unit is called 1.

    The gradient is <v h> of the data minus <v h> of the model. Here the covariances of v and h take the place of these
    means, which separates learning weights from learning biases: section 4 of Cho et al.,
    dW = Cov(v, h) of the data - Cov(v, h) of the model, db = <v> of the data - <v> of the model - dW.m(h), and dc
    likewise, where m is the mean of the means of both phases.
    """
    data_visible, data_hidden, data_covariance = moments(data)
    model_visible, model_hidden, model_covariance = moments(model)
    weight = data_covariance - model_covariance
    visible_bias = data_visible - model_visible - weight @ ((data_hidden + model_hidden) / 2)
    hidden_bias = data_hidden - model_hidden - ((data_visible + model_visible) / 2) @ weight
    return Gradient(weight, visible_bias, hidden_bias)


def moments(phase: Phase) -> tuple[Tensor, Tensor, Tensor]:
    """The means of v and of p(h|v) and their covariance: `(visible,)`, `(hidden,)` and `(visible, hidden)`."""
    visible, hidden = phase.visible, torch.sigmoid(phase.hidden_logits)
    mean = visible.mean(dim=0)
    return mean, hidden.mean(dim=0), (visible - mean).t() @ hidden / len(visible)


class Layer(nn.Module):
    """An RBM in training: its weights, their moving average, and the hidden states of its persistent chains.

    Under several processes each has chains of its own, and after a resume those of the first process. They are
    integers, since float buffers would be averaged.
    """

    chains: Tensor  # uint8 (batch size, hidden)

    def __init__(self, rbm: Rbm, steps: int, config: DbnConfig) -> None:
        """`steps`: of the whole training of this RBM."""
        super().__init__()
        self.rbm = rbm
        self.average = Average(rbm, config.ema_decay)
        self.register_buffer("chains", torch.zeros(config.batch_size, len(rbm.hidden_bias), dtype=torch.uint8))
        self.steps = steps
        self.contrastive_steps = round(config.contrastive_share * steps)

    @property
    def averaged(self) -> Rbm:
        """The RBM with averaged weights."""
        assert isinstance(self.average.module, Rbm)
        return self.average.module

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Plain gradient steps: momentum would move the weights faster than the chains can follow."""
        biases = [self.rbm.visible_bias, self.rbm.hidden_bias]
        groups: list[dict[str, Any]] = [
            {"params": [self.rbm.weight], "weight_decay": weight_decay},
            {"params": biases},
        ]
        return torch.optim.SGD(groups, lr=learning_rate)

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """The learning rate falls linearly to 0 over the steps of this RBM, which `last_epoch` counts."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / self.steps))

    def phases(self, visible: Tensor, *, persistent: bool) -> tuple[Phase, Phase]:
        """The phases of data `(B, visible)` and of the model, after one Gibbs step of its chains.

        The chains start from the hidden states of the data (contrastive divergence) or go on from the last step.
        """
        data = Phase(visible, self.rbm.hidden_logits(visible))
        rows = len(visible)
        hidden = self.chains[:rows].float() if persistent else sample(torch.sigmoid(data.hidden_logits))
        fantasies = self.rbm.sample_visible(hidden)
        model = Phase(fantasies, self.rbm.hidden_logits(fantasies))
        self.chains[:rows] = sample(torch.sigmoid(model.hidden_logits))
        return data, model

    def restart(self, chosen: Tensor, visible: Tensor) -> None:
        """Start chains anew from visible means: `chosen`, bool `(B,)`, selects chains and rows of `(B, visible)`."""
        starts = sample(torch.sigmoid(self.rbm.hidden_logits(visible[chosen])))
        self.chains[: len(chosen)][chosen] = starts.to(torch.uint8)


class GibbsChain(nn.Module):
    """Latents and labels to images: a Gibbs chain in the top RBM with its label clamped, then the mean pixels.

    The chain is discrete: a rounding error that flips one bit changes the image. For equal chains in every batch and on
    every machine, weights and biases are rounded to a grid on which all sums are exact in float32, in any order
    (`on_grid`), and a unit is on where its log-odds exceed a logistic number from a stored table. The random numbers
    are a hash of the latent (`row_keys`, `hashed`).
    """

    counters: Tensor  # int32 (words,)
    quantiles: Tensor  # float32 (QUANTILES,)

    def __init__(self, lower: Rbm, top: Rbm, means: Tensor, image: tuple[int, int, int], steps: int) -> None:
        """`means` `(classes, hidden)`: the class means of the lower RBM's hidden units, where the chain starts."""
        super().__init__()
        classes, self.visible = means.shape
        self.hidden, self.steps = len(top.hidden_bias), steps
        label_weight = CLAMPED_VALUE * top.weight[-classes:]
        weight, visible_bias, hidden_bias, label_weight = on_grid(
            top.weight[:-classes], top.visible_bias[:-classes], top.hidden_bias, label_weight
        )
        pixel_weight, pixel_bias = on_grid(lower.weight.t(), lower.visible_bias)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.visible_bias = nn.Parameter(visible_bias, requires_grad=False)
        self.clamped = nn.Parameter(hidden_bias + label_weight, requires_grad=False)  # (classes, top hidden)
        self.start = nn.Parameter(self.clamped + means @ weight, requires_grad=False)  # (classes, top hidden)
        self.pixel_weight = nn.Parameter(pixel_weight, requires_grad=False)
        self.pixel_bias = nn.Parameter(pixel_bias, requires_grad=False)
        _, self.height, self.width = image
        self.to_images = ToImages()
        # Each word of the hash gives two numbers.
        self.words = (self.hidden + self.visible + 1) // 2
        self.register_buffer("counters", torch.arange(self.words, dtype=torch.int32))
        self.register_buffer("quantiles", logistic_quantiles(QUANTILES))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, 4)` and labels int64 `(B,)` to images `(B, 1, H, W)` in [0, 1]."""
        keys = row_keys(latents)
        clamped = self.clamped[labels]
        logits = self.start[labels]
        visible = logits
        for step in range(self.steps):
            if step > 0:
                logits = torch.addmm(clamped, visible, self.weight)
            thresholds = self.logistic(keys, step)
            hidden = (logits > thresholds[:, : self.hidden]).float()
            logits = torch.addmm(self.visible_bias, hidden, self.weight.t())
            visible = (logits > thresholds[:, self.hidden : self.hidden + self.visible]).float()
        pixels = torch.addmm(self.pixel_bias, visible, self.pixel_weight)
        # Not `view(-1, ...)`, of which freezing the archive makes a wrong constant.
        images: Tensor = self.to_images(torch.unflatten(pixels, 1, (1, self.height, self.width)))
        return images

    def logistic(self, keys: Tensor, step: int) -> Tensor:
        """Logistic numbers for a step of the chain, keys int32 `(B, 2)` to at least `(B, hidden + visible)`."""
        counters = self.counters + step * self.words
        words = hashed(counters + keys[:, :1], keys[:, 1:])
        halves = torch.cat([words >> 16, words], dim=1) & 0xFFFF
        return self.quantiles.index_select(0, halves.flatten()).view(halves.shape)


def logistic_quantiles(count: int) -> Tensor:
    """The quantiles log(u / (1 - u)) of the logistic distribution at the middles u of `count` equal parts of (0, 1).

    A unit of log-odds a is on with probability sigmoid(a), the probability that a logistic number is less than a.
    """
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.logit(u).float()


@torch.no_grad()
def on_grid(weight: Tensor, *others: Tensor) -> list[Tensor]:
    """The tensors rounded to multiples of a power of two, so fine that sums are still exact in float32.

    A sum has any of the elements of a row or a column of `weight`, and one element of each of the others. In units of
    the grid it stays below 2^24, to which float32 has all integers.
    """
    sums = weight.abs().sum(dim=0).max(), weight.abs().sum(dim=1).max(), *(other.abs().max() for other in others)
    _, exponent = math.frexp(sum(map(float, sums)))  # the sum is below 2^exponent
    grid = 2.0 ** (exponent - 23)
    return [torch.round(tensor / grid).mul(grid).contiguous() for tensor in (weight, *others)]


def hashed(counters: Tensor, keys: Tensor) -> Tensor:
    """Random bits, int32, from int32 counters and keys that broadcast to one shape. Sums and products wrap.

    It is the hash `lowbias32` of C. Wellons (2018, https://nullprogram.com/blog/2018/07/31/) with the key added in its
    middle. A right shift of int32 copies the sign; the masks remove the copies.
    """
    x = counters ^ ((counters >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) + keys
    x = x * -0x7B935975  # 0x846CA68B as an int32
    return x ^ ((x >> 16) & 0xFFFF)


def row_keys(latents: Tensor) -> Tensor:
    """Two keys of 32 bits for each latent: float32 `(B, D)` to int32 `(B, 2)`. They depend on every bit of the row."""
    mantissas, exponents = torch.frexp(latents)
    # 2^24 times the mantissa has 25 bits with its sign; 2^25 times the exponent wraps into the other seven.
    words = (mantissas * 16777216).to(torch.int32) + exponents * 33554432
    first = torch.zeros_like(words[:, :1])
    second = first
    for column in range(words.shape[1]):
        word = words[:, column : column + 1]
        first = hashed(first ^ word, second)
        second = hashed(second + word, first)
    return torch.cat([first, second], dim=1)


class DbnLearner(Learner):
    """The lower RBM learns for the first share of the steps, the top RBM for the rest, on its hidden states."""

    latent_dim = LATENT_DIM
    conditional = True
    smooth_latents = False
    sequential = True

    def __init__(self, config: DbnConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        self.classes = data.classes
        lower_steps = max(1, round(config.lower_share * total_steps))
        self.lower = Layer(Rbm(math.prod(data.image), config.hidden), lower_steps, config)
        top = Rbm(config.hidden, config.top_hidden, data.classes)
        self.top = Layer(top, max(1, total_steps - lower_steps), config)
        self.lower_optimizer = self.lower.optimizer(config.lower_learning_rate, config.weight_decay)
        self.top_optimizer = self.top.optimizer(config.top_learning_rate, config.weight_decay)
        self.lower_schedule = self.lower.schedule(self.lower_optimizer)
        self.top_schedule = self.top.schedule(self.top_optimizer)

    @torch.no_grad()
    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step of one RBM on images `(1, B, 1, H, W)` and labels `(1, B)`.

        The lower RBM learns pixels drawn black or white by their grey, again at each step. The features of the top RBM
        are drawn given the grey pixels, which show more of the digit. The loss is the difference of the mean free
        energies of data and model in nats, whose gradient is that of the mean negative log-likelihood.

        Some chains of the top RBM start again, from the mean of the features that the batch has of their class, so that
        the model also learns what short chains give (Du and Mordatch; without, they kept to a few forms of each digit).
        Chains that generate start from the mean over all training images.
        """
        pixels = images[0].flatten(1)
        if self.lower_schedule.last_epoch < self.lower.steps:
            return self._learn(self.lower, self.lower_optimizer, self.lower_schedule, sample(pixels))
        features = sample(torch.sigmoid(self.lower.averaged.hidden_logits(pixels)))
        units = label_units(labels[0], self.classes)
        losses = self._learn(self.top, self.top_optimizer, self.top_schedule, torch.cat([features, units], dim=1))
        restarted = torch.rand(len(units), device=units.device) < self.config.restart_share
        self.top.restart(restarted, torch.cat([row_means(features, labels[0]), units], dim=1))
        return losses

    def _learn(
        self,
        layer: Layer,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        visible: Tensor,
    ) -> dict[str, Tensor]:
        rbm = layer.rbm
        data, model = layer.phases(visible, persistent=schedule.last_epoch >= layer.contrastive_steps)
        for parameter, ascent in zip(rbm.parameters(), enhanced_gradient(data, model), strict=True):
            parameter.grad = -ascent
        data_energy, model_energy = (free_energy(v, rbm.visible_bias, h).mean() for v, h in (data, model))
        optimizer.step()
        schedule.step()
        layer.average.update_parameters(rbm)
        return {"free_energy_difference": data_energy - model_energy}

    def networks(self, training_set: TrainingSet) -> Networks:
        """The chain with averaged weights. It starts from the class means of the training set."""
        lower, top = self.lower.averaged, self.top.averaged
        means = class_means(lower, training_set, self.classes)
        chain = GibbsChain(lower, top, means, self.image_shape, CHAIN_STEPS)
        return {"generate": chain.to(means.device)}

    @torch.no_grad()
    def figures(self, dataset: Dataset) -> dict[str, Figure]:
        """The negative log-likelihood of the lower RBM on binarised test images, log Z by annealed importance sampling.

        It takes a minute. Source: R. Salakhutdinov, I. Murray, "On the Quantitative Analysis of Deep Belief Networks",
        ICML 2008, with their number of chains and of temperatures.
        """
        rbm = copy.deepcopy(self.lower.averaged).cpu()
        source = torch.Generator().manual_seed(0)
        images = fixed_binarisation(dataset.test_images).flatten(1)
        # The base distribution has the mean of each pixel, kept away from 0 and 1.
        base = torch.logit(to_unit_range(dataset.train_images).mean(dim=0).flatten(), 1e-3)
        log_z, error = anneal(
            rbm.weight, rbm.visible_bias, rbm.hidden_bias, base, inverse_temperatures(), chains=100, source=source
        )
        log.info("log Z of the lower RBM is %.2f, standard error %.2f", log_z, error)
        energies = free_energy(images, rbm.visible_bias, rbm.hidden_logits(images)).double()
        figure = Figure(
            value=float(energies.mean()) + log_z,
            # The errors of log Z and of the mean over the images are independent.
            standard_error=math.sqrt(error**2 + float(energies.var()) / len(energies)),
            unit=f"nats an image, {len(images):,} binarised images",
            better="lower",
        )
        return {"lower_rbm_negative_log_likelihood": figure}


@torch.no_grad()
def class_means(rbm: Rbm, training_set: TrainingSet, classes: int) -> Tensor:
    """The mean probability of each hidden unit over the images of each class: `(classes, hidden)`; 0 without images."""
    device = rbm.weight.device
    sums = torch.zeros(classes, len(rbm.hidden_bias), device=device)
    for images, labels in batches(BATCH, *training_set):
        pixels = to_unit_range(images.to(device)).flatten(1)
        sums.index_add_(0, labels.to(device), torch.sigmoid(rbm.hidden_logits(pixels)))
    counts = torch.bincount(training_set[1], minlength=classes).to(device)
    return sums / counts.clamp(min=1)[:, None]


FAMILY = Family("dbn", DbnConfig, DbnLearner)

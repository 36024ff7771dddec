"""Gated PixelCNN, conditional on the label, in the order of a subscale pixel network.

An image is drawn and coded pixel after pixel, each from a softmax over its grey levels given all pixels before it and
the label. The pixels of the even rows and columns come first: a small image that holds the whole digit, of a quarter of
the pixels. The other three quarters follow, each given those before it: first the pixels diagonal to the small image,
then those between, whose four neighbours are known by then. In raster order a network spends its capacity on the
nearest pixels, and its digits fall apart although their likelihood is good.

Sources: A. van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, arXiv:1606.05328 (gated
layers in two stacks, conditional on labels and maps); J. Menick, N. Kalchbrenner, "Generating High Fidelity Images with
Subscale Pixel Networks and Multidimensional Upscaling", 2018, arXiv:1812.01608 (the order).
"""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.archive import Networks
from training.average import Average
from training.config import NAME_PATTERN, TrainConfig
from training.families import Family
from training.learner import DataShape, GradientLearner, TrainingSet

QUARTERS = 4
# The networks take the value of each pixel and whether it has ink.
FEATURES = 2
# One for each layer. With kernels of two rows, three layers see seven rows up.
DILATIONS = (1, 2, 4)
CONTEXT_LAYERS = 3
WARM_UP_SHARE = 0.01  # of the steps
# Rows of a tile of the matrix kernels, see `training.fast_layers.Dense`: for these small matrices, 8 at most.
TILE = 8
# The 1x1 convolutions with fewer channels than a vector has lanes rounded a row differently in other batches.
LANES = 16


class PixelCnnConfig(TrainConfig):
    """An autoregressive model that draws one pixel after another, given the label."""

    family: Literal["pixelcnn"] = "pixelcnn"
    name: str = Field("pixelcnn", pattern=NAME_PATTERN)
    epochs: int = Field(24, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(2e-3, gt=0, description="after the warm-up; it falls to 0 along a cosine")
    channels: int = Field(
        48, ge=LANES, multiple_of=LANES, description="of both stacks for the first quarter of the pixels"
    )
    layers: int = Field(9, ge=1, description="gated layers for the first quarter")
    detail_channels: int = Field(32, ge=LANES, multiple_of=LANES, description="of both stacks for each other quarter")
    detail_layers: int = Field(2, ge=1, description="gated layers for each other quarter")
    binarised: bool = Field(False, description="black and white pixels, drawn at each training step by their grey")


def gated(x: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the halves a and b of the channels: `(B, 2 C, ...)` to `(B, C, ...)`. Eq. 2."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def negative_log_likelihood(logits: Tensor, levels: Tensor) -> Tensor:
    """-log p of images in nats, summed over pixels: logits `(B, L, H, W)`, levels int64 `(B, H, W)` to `(B,)`."""
    rows = logits.float().permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, L)
    losses = functional.cross_entropy(rows, levels.flatten(), reduction="none")
    return losses.view(levels.shape[0], -1).sum(dim=1)


def quantiles(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The inverse of the cumulative distribution: logits `(B, L)` and uniforms `(B, 1)` in [0, 1] to levels `(B, 1)`.

    The uniforms are scaled by the sum of the probabilities, which rounding may leave below 1.
    """
    cumulative = logits.softmax(dim=1).cumsum(dim=1)
    return torch.searchsorted(cumulative, uniforms * cumulative[:, -1:])


def to_quarters(images: Tensor) -> Tensor:
    """Images `(B, 1, H, W)` to their quarters `(B, 4, H / 2, W / 2)` in the order of drawing.

    By the parities of row and column: even and even, odd and odd, even and odd, odd and even.
    """
    parts = functional.pixel_unshuffle(images, 2)
    return torch.cat([parts[:, :1], parts[:, 3:], parts[:, 1:3]], dim=1)


def from_quarters(quarters: Tensor) -> Tensor:
    """The inverse of `to_quarters`."""
    parts = torch.cat([quarters[:, :1], quarters[:, 2:], quarters[:, 1:2]], dim=1)
    return functional.pixel_shuffle(parts, 2)


class GatedLayer(nn.Module):
    """A layer of both stacks, figure 2 of the paper, with the label in both (eq. 4). Both have residual connections."""

    def __init__(self, channels: int, dilation: int, classes: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.vertical = nn.Conv2d(channels, 2 * channels, (2, 3), dilation=dilation)
        # Without a bias: that of the link is added to the result.
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, 2), dilation=(1, dilation), bias=False)
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.label = nn.Embedding(classes, 4 * channels)
        nn.init.zeros_(self.label.weight)

    def vertical_stack(self, above: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The residual `(B, C, h, w)` of the vertical stack, and its link to the horizontal one, `(B, 2 C, h, w)`.

        `above` `(B, C, h + dilation, w + 2 dilation)` is the input, padded on the left, on the right and at the top.
        """
        to_vertical, to_link = self.label(labels)[:, :, None, None].chunk(2, dim=1)
        found = self.vertical(above)
        found = found + to_vertical.to(found.dtype)
        link = self.link(found)
        return gated(found), link + to_link.to(link.dtype)

    def forward(self, v: Tensor, h: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks `(B, C, H, W)` to the same. `v` sees the rows above a pixel, `h` also the pixels to its left."""
        d = self.dilation
        change, link = self.vertical_stack(functional.pad(v, (d, d, d, 0)), labels)
        across = self.horizontal(functional.pad(h, (d, 0, 0, 0)))
        return v + change, h + self.out(gated(across + link))


class Context(nn.Module):
    """A map of the quarters drawn before, by convolutions without masks: features to `(B, 2 C, H, W)`."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, channels, 3, padding=1)
        self.layers: Any = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 3, padding=1) for _ in range(CONTEXT_LAYERS))
        self.last = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, known: Tensor) -> Tensor:
        """`known` is `(B, features, H, W)`. The layers have residual connections."""
        x = self.first(known)
        for layer in self.layers:
            x = x + gated(layer(x))
        result: Tensor = self.last(x)
        return result


class Quarter(nn.Module):
    """A gated PixelCNN of one quarter of the pixels, given the label and a map of the quarters before it (eq. 5).

    Each class also has a learned map, which encodes the position of a pixel.
    """

    def __init__(self, before: int, channels: int, layers: int, levels: int, side: int, classes: int) -> None:
        """`before`: number of quarters drawn before. `side`: of the quarter, in pixels."""
        super().__init__()
        self.channels, self.levels, self.side, self.features = channels, levels, side, FEATURES
        self.context = Context(before * FEATURES, channels) if before else None
        self.map = nn.Embedding(classes, side * side * 2 * channels)
        nn.init.zeros_(self.map.weight)
        self.vertical = nn.Conv2d(FEATURES, channels, (3, 5))
        self.horizontal = nn.Conv2d(FEATURES, channels, (1, 3), bias=False)  # the map is added to the result
        self.layers: Any = nn.ModuleList(
            GatedLayer(channels, DILATIONS[number % len(DILATIONS)], classes) for number in range(layers)
        )
        self.hidden = nn.Conv2d(channels, 2 * channels, 1)
        self.last = nn.Conv2d(2 * channels, max(levels, LANES), 1)  # those beyond the levels are not used

    def condition(self, known: Tensor, labels: Tensor) -> Tensor:
        """What is added to the inputs of the vertical and the horizontal stack, `(B, 2 C, side, side)`."""
        maps: Tensor = self.map(labels).view(-1, self.side, self.side, 2 * self.channels).permute(0, 3, 1, 2)
        if self.context is not None:
            maps = maps + self.context(known)
        return maps

    def forward(self, features: Tensor, known: Tensor, labels: Tensor) -> Tensor:
        """Logits `(B, levels, side, side)` of all pixels at once.

        `features` `(B, FEATURES, side, side)` are those of this quarter, `known` `(B, before * FEATURES, side, side)`
        those of the quarters before.
        """
        to_v, to_h = self.condition(known, labels).chunk(2, dim=1)
        # The three rows above and two columns on either side; the three pixels to the left.
        v = self.vertical(functional.pad(features, (2, 2, 3, 0))[:, :, :-1])
        h = self.horizontal(functional.pad(features, (3, 0, 0, 0))[:, :, :, :-1])
        v, h = v + to_v.to(v.dtype), h + to_h.to(h.dtype)
        for layer in self.layers:
            v, h = layer(v, h, labels)
        logits: Tensor = self.last(functional.relu(self.hidden(functional.relu(h))))
        return logits[:, : self.levels]

    def draw(self, uniforms: Tensor, known: Tensor, labels: Tensor) -> Tensor:
        """Draw the pixels one by one: uniform numbers `(B, side, side)` to features `(B, FEATURES, side, side)`.

        It computes what `forward` does, each position once: the vertical stack a row at a time, the horizontal one a
        pixel at a time. The inputs that later rows and pixels need are kept.
        """
        count, side, channels = uniforms.shape[0], self.side, self.channels
        to_v, to_h = self.condition(known, labels).chunk(2, dim=1)
        # With the three rows above, the three columns to the left and the two to the right.
        canvas = uniforms.new_zeros(count, self.features, side + 3, side + 5)
        above = [uniforms.new_zeros(count, channels, side + layer.dilation, side) for layer in self.layers]
        for y in range(side):
            v = self.vertical(canvas[:, :, y : y + 3, 1:]) + to_v[:, :, y : y + 1]  # (B, C, 1, side)
            links: list[Tensor] = []
            for number, layer in enumerate(self.layers):
                d = layer.dilation
                above[number][:, :, y + d] = v[:, :, 0]
                change, link = layer.vertical_stack(
                    functional.pad(above[number][:, :, y : y + d + 1], (d, d, 0, 0)), labels
                )
                v = v + change
                links.append(link[:, :, 0].permute(2, 0, 1).contiguous())  # (side, B, 2 C)
            self.draw_row(canvas, y, to_h[:, :, y].permute(2, 0, 1).contiguous(), links, uniforms[:, y])
        return canvas[:, :, 3:, 3 : 3 + side]

    def draw_row(self, canvas: Tensor, y: int, to_h: Tensor, links: list[Tensor], uniforms: Tensor) -> None:
        """Draw row `y` of the canvas. `to_h` is `(side, B, C)`, `links` `(side, B, 2 C)` a layer, uniforms `(B, side)`.

        The convolutions are products of the rows with their kernels as matrices `(in, out)`.
        """
        first = self.horizontal.weight.flatten(1).t()
        hidden, last = self.hidden.weight.flatten(1).t(), self.last.weight.flatten(1).t()
        hidden_bias, last_bias = self.hidden.bias, self.last.bias
        assert hidden_bias is not None
        assert last_bias is not None
        across = [layer.horizontal.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1) for layer in self.layers]
        out = [layer.out.weight.flatten(1).t() for layer in self.layers]
        # The inputs of the layers, with `dilation` columns to the left: (dilation + side, B, C).
        left = [functional.pad(torch.zeros_like(to_h), (0, 0, 0, 0, layer.dilation, 0)) for layer in self.layers]
        for x in range(self.side):
            h = torch.addmm(to_h[x], canvas[:, :, y + 3, x : x + 3].flatten(1), first)
            for number in range(len(links)):
                inputs = left[number]
                inputs[inputs.shape[0] - self.side + x] = h
                taps = torch.cat([inputs[x], h], dim=1)
                h = torch.addmm(h, gated(torch.addmm(links[number][x], taps, across[number])), out[number])
            h = functional.relu(torch.addmm(hidden_bias, functional.relu(h), hidden))
            logits = torch.addmm(last_bias, h, last)[:, : self.levels]
            level = quantiles(logits, uniforms[:, x : x + 1])[:, 0].to(canvas.dtype)
            canvas[:, 0, y + 3, x + 3] = level / (self.levels - 1)
            canvas[:, 1, y + 3, x + 3] = (level > 0).to(canvas.dtype)


class PixelCnn(nn.Module):
    """The networks of the four quarters."""

    def __init__(self, config: PixelCnnConfig, data: DataShape) -> None:
        super().__init__()
        self.levels, self.side, self.features = 2 if config.binarised else 256, data.image[1] // 2, FEATURES
        details = [(config.detail_channels, config.detail_layers)] * (QUARTERS - 1)
        self.quarters: Any = nn.ModuleList(
            Quarter(number, channels, layers, self.levels, self.side, data.classes)
            for number, (channels, layers) in enumerate([(config.channels, config.layers), *details])
        )

    def logits(self, levels: Tensor, labels: Tensor) -> list[Tensor]:
        """Levels int64 `(B, 1, H, W)` and labels `(B,)` to the logits `(B, levels, H / 2, W / 2)` of each quarter."""
        values = to_quarters(levels.float() / (self.levels - 1))
        features = torch.stack([values, (values > 0).float()], dim=2).flatten(1, 2)  # (B, 4 FEATURES, H / 2, W / 2)
        found: list[Tensor] = []
        for number, quarter in enumerate(self.quarters):
            start = number * self.features
            found.append(quarter(features[:, start : start + self.features], features[:, :start], labels))
        return found

    def forward(self, levels: Tensor, labels: Tensor) -> Tensor:
        """-log p of each quarter in nats, `(B, 4)`; their sum is that of the image. Arguments as of `logits`."""
        quarters = to_quarters(levels)
        nats: list[Tensor] = []
        for number, logits in enumerate(self.logits(levels, labels)):
            nats.append(negative_log_likelihood(logits, quarters[:, number]))
        return torch.stack(nats, dim=1)

    def draw(self, uniforms: Tensor, labels: Tensor) -> Tensor:
        """Uniform numbers `(B, 1, H, W)`, one for each pixel, and labels `(B,)` to images in [0, 1] of that shape."""
        quarters = to_quarters(uniforms)
        known = uniforms.new_zeros(uniforms.shape[0], 0, self.side, self.side)
        for number, quarter in enumerate(self.quarters):
            known = torch.cat([known, quarter.draw(quarters[:, number], known, labels)], dim=1)
        return from_quarters(known[:, :: self.features])


def padded(rows: Tensor, tile: int = TILE) -> Tensor:
    """Rows padded with copies of the last one to full tiles: `(B, ...)` to `(B', ...)`.

    Without the padding, a result would depend on the number of rows. `tile` is a parameter because functions in
    TorchScript cannot read constants of their module.
    """
    count = rows.shape[0]
    full = count + (tile - count % tile) % tile
    return rows[torch.arange(full, device=rows.device).clamp(max=count - 1)]


class Sampler(nn.Module):
    """Draws images from the noise of their pixels."""

    def __init__(self, network: PixelCnn) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Standard normal `(B, H * W)` and labels int64 `(B,)` to images `(B, 1, H, W)`, a number for each pixel."""
        side = 2 * self.network.side
        uniforms = torch.special.ndtr(padded(latents)).view(-1, 1, side, side)
        images: Tensor = self.network.draw(uniforms, padded(labels))[: latents.shape[0]]
        return images


class LogLikelihood(nn.Module):
    """The exact likelihood of 8-bit images, or of black and white ones."""

    def __init__(self, network: PixelCnn) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` in [0, 1] and labels `(B,)` to log p in nats, `(B,)`. Pixels are rounded to levels."""
        levels = (padded(images) * (self.network.levels - 1)).round().long()
        nats: Tensor = self.network(levels, padded(labels)).sum(dim=1)
        return -nats[: images.shape[0]]


class PixelCnnLearner(GradientLearner):
    """The network, its optimiser and the moving average of its weights, which is exported.

    A latent has a standard normal number for each pixel.
    """

    conditional = True
    smooth_latents = False
    sequential = True

    def __init__(self, config: PixelCnnConfig, data: DataShape, total_steps: int) -> None:
        super().__init__(data)
        self.config = config
        self.latent_dim = data.image[1] * data.image[2]
        self.network = PixelCnn(config, data).to(memory_format=torch.channels_last)
        self.average = Average(self.network, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        warm_up = max(WARM_UP_SHARE * total_steps, 1)

        def rate(step: int) -> float:
            return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(step / total_steps, 1))))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One gradient step on images `(1, B, 1, H, W)`; -log p in nats an image, of all and of the first quarter."""
        batch = torch.bernoulli(images[0]) if self.config.binarised else images[0]
        levels = (batch * (self.network.levels - 1)).round().long()
        with self.autocast():
            nats = self.network(levels, labels[0]).mean(dim=0)  # (4,)
        loss = nats.sum()
        self.descend(loss, self.network)
        return {"negative_log_likelihood": loss.detach(), "first_quarter": nats[0].detach()}

    def networks(self, training_set: TrainingSet) -> Networks:  # noqa: ARG002 - nothing is fitted
        """The averaged network, as a sampler and as a likelihood; they share its weights."""
        average = self.average.module
        assert isinstance(average, PixelCnn)
        return {"generate": Sampler(average), "log_likelihood": LogLikelihood(average)}


FAMILY = Family("pixelcnn", PixelCnnConfig, PixelCnnLearner)

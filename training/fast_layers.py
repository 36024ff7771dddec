"""Layers for archives that compute the function of the textbook layers faster.

Training uses the textbook layers. In float32 a rewritten network differs from its source by rounding only. In bfloat16,
which halves the memory traffic and quadruples the arithmetic throughput of processors with AMX, the export measures the
difference. Images are in channels-last memory format, which the matrix kernels expect.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dense(nn.Module):
    """A linear layer whose rows do not depend on the size of the batch: `(B, in)` to `(B, out)`, float32.

    Matrix kernels take rows in tiles and compute the remainder separately, with the terms of a sum in another order, so
    that those rows differ in the last bit. Here the batch is padded to full tiles. Their size depends on the processor
    and on the matrix: 4 rows on Xeons with AMX, up to 16 on one without.
    """

    TILE = 16

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(bias.detach().clone())
        self.tile = self.TILE

    def forward(self, x: Tensor) -> Tensor:
        """Padding rows are zeros and are removed from the output."""
        rows = x.shape[0]
        missing = (self.tile - rows % self.tile) % self.tile
        return functional.linear(functional.pad(x, (0, 0, 0, missing)), self.weight, self.bias)[:rows]


class Spread(nn.Module):
    """A dense layer from latents to small images: `(B, latent)` to `(B, parts * channels, side, side)`.

    It always computes in float32: it is a hundredth of the work, and its errors would pass through every later layer.
    In bfloat16 it returns its result in two parts, the rounded values and the rounded remainders, which together have
    sixteen bits of mantissa. The next layer adds them up.
    """

    def __init__(self, layer: nn.Linear, channels: int, side: int, slope: float, dtype: torch.dtype) -> None:
        """`slope` of the leaky ReLU that follows; 1 for none."""
        super().__init__()
        # Rows of the matrix from (channel, y, x) to (y, x, channel).
        order = torch.arange(layer.out_features).view(channels, side, side).permute(1, 2, 0).flatten()
        self.dense = Dense(layer.weight[order], layer.bias[order])
        self.channels, self.side, self.slope, self.dtype = channels, side, slope, dtype
        self.parts = 1 if dtype == torch.float32 else 2

    def forward(self, latents: Tensor) -> Tensor:
        """The result is in channels-last memory format."""
        x = self.dense(latents)
        if self.slope != 1.0:
            x = functional.leaky_relu(x, self.slope)
        x = x.view(-1, self.side, self.side, self.channels)
        rounded = x.to(self.dtype)
        if self.parts == 2:
            rounded = torch.cat([rounded, (x - rounded.float()).to(self.dtype)], dim=3)
        images: Tensor = rounded.permute(0, 3, 1, 2)
        return images


class Upsample(nn.Module):
    """A transposed convolution and its leaky ReLU: `(B, in, H, W)` to `(B, out, 2 H, 2 W)`, in `dtype`.

    `parts`: number of parts of each input, see `Spread`. `input_scale`: the `scale` of the previous layer. `scale`: a
    factor near 1 for each output channel that makes the rounded biases exact, since errors of biases, unlike those of
    weights, are the same for every pixel. A leaky ReLU preserves positive factors, and the next layer divides its
    weights by them.
    """

    def __init__(
        self,
        layer: nn.ConvTranspose2d,
        slope: float,
        dtype: torch.dtype,
        *,
        parts: int = 1,
        input_scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        assert layer.bias is not None
        bias = layer.bias.detach()
        self.scale: Tensor = torch.where(bias == 0, 1.0, bias.to(dtype).float() / bias)
        weight = layer.weight.detach() * self.scale[:, None, None]  # (in, out, K, K)
        if input_scale is not None:
            weight = weight / input_scale[:, None, None, None]
        weight = torch.cat([weight] * parts)
        self.weight = nn.Parameter(weight.to(dtype, memory_format=torch.channels_last))
        self.bias = nn.Parameter((bias * self.scale).to(dtype))
        self.slope = slope
        assert isinstance(layer.padding, tuple)
        self.stride, self.padding, self.output_padding = layer.stride[0], layer.padding[0], layer.output_padding[0]

    def forward(self, x: Tensor) -> Tensor:
        """Kernels, strides and paddings are square."""
        y = functional.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding)
        return functional.leaky_relu_(y, self.slope)


class ToPixels(nn.Module):
    """A convolution to one channel that keeps the size, computed for blocks of `BLOCK` x `BLOCK` pixels.

    One output channel would leave most lanes of a matrix kernel empty. The pixels of a block become 16 channels of a
    larger convolution at stride 4, whose kernels are the given one at 16 offsets, and a pixel shuffle puts them into
    place: twice the arithmetic, on all lanes.

    In bfloat16 the kernels come in two parts like the images of `Spread`: this layer has the longest sums, and the
    remainders fit into unused lanes. `(B, in, H, W)` in `dtype` to float32 logits `(B, 1, H, W)`, H and W multiples
    of 4.
    """

    BLOCK = 4

    def __init__(self, kernel: Tensor, bias: Tensor | None, dtype: torch.dtype, *, input_scale: Tensor) -> None:
        """`kernel` `(in, K, K)`, K odd, is that of a convolution (cross-correlation) with padding K // 2."""
        super().__init__()
        kernel = kernel.detach() / input_scale[:, None, None]
        channels, size, _ = kernel.shape
        wide = size + self.BLOCK - 1
        weight = torch.zeros(self.BLOCK, self.BLOCK, channels, wide, wide)
        for y in range(self.BLOCK):
            for x in range(self.BLOCK):
                weight[y, x, :, y : y + size, x : x + size] = kernel
        weight = weight.flatten(0, 1)  # (16, in, wide, wide)
        if dtype != torch.float32:
            weight = torch.cat([weight, weight - weight.to(dtype).float()])
        self.weight = nn.Parameter(weight.to(dtype, memory_format=torch.channels_last))
        assert bias is not None
        self.bias = nn.Parameter(bias.detach().clone())
        self.padding, self.block = size // 2, self.BLOCK
        self.parts = 1 if dtype == torch.float32 else 2

    def forward(self, x: Tensor) -> Tensor:
        """The parts and the bias are added in float32."""
        y = functional.conv2d(x, self.weight, None, stride=self.block, padding=self.padding).float()
        if self.parts == 2:
            kernels, remainders = y.chunk(2, dim=1)
            y = kernels + remainders
        return functional.pixel_shuffle(y, self.block) + self.bias


def fast_upsampler(
    dense: nn.Linear,
    ups: tuple[nn.ConvTranspose2d, nn.ConvTranspose2d],
    kernel: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    slopes: tuple[float, float],
) -> nn.Module:
    """A generator of 28x28 pixels, rewritten: latents `(B, latent)` to logits `(B, 1, 28, 28)`.

    dense: to images of 7x7 pixels. ups: to 14x14 and 28x28 pixels. kernel, bias: of the convolution to one channel, as
    `ToPixels` has them. slopes: of the leaky ReLU after `dense`, 1 for none, and after each of `ups`.
    """
    spread = Spread(dense, ups[0].in_channels, 7, slopes[0], dtype)
    first = Upsample(ups[0], slopes[1], dtype, parts=spread.parts)
    second = Upsample(ups[1], slopes[1], dtype, input_scale=first.scale)
    return nn.Sequential(spread, first, second, ToPixels(kernel, bias, dtype, input_scale=second.scale))


class ToImages(nn.Module):
    """The sigmoid of `contrast` times pixel logits `(B, 1, H, W)`; rows do not depend on the size of the batch.

    Vector kernels take two vectors of up to 16 numbers at a time and compute the remainder by another formula, which
    differs in the last bit. Here no remainder is left. `training.contrast` chooses the contrast.
    """

    TILE = 32

    def __init__(self, contrast: float = 1.0) -> None:
        super().__init__()
        self.contrast = contrast
        self.tile = self.TILE

    def forward(self, logits: Tensor) -> Tensor:
        """The pixels of all images are padded to whole tiles."""
        pixels = logits.reshape(-1)
        count = pixels.shape[0]
        whole = functional.pad(pixels, (0, (self.tile - count % self.tile) % self.tile))
        return torch.sigmoid(self.contrast * whole)[:count].view(logits.shape)


def stable_rows(module: nn.Module) -> nn.Module:
    """The module with every linear layer as `Dense` and its convolutions in channels-last memory, changed in place."""
    if isinstance(module, nn.Linear):
        return Dense(module.weight, module.bias)
    for name, child in module.named_children():
        setattr(module, name, stable_rows(child))
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        module.to(memory_format=torch.channels_last)
    return module

"""Networks rewritten to compute the same function faster. Knows no files, no training and no family.

Training keeps the textbook layers; an archive holds these. They are plain TorchScript: any PyTorch loads
them. In float32 a rewritten network differs from its source by rounding alone; in bfloat16, which halves
the memory traffic and quadruples the arithmetic of processors that have it, by what the export measures.

Images lie in memory channels last, as the matrix kernels want them: every pixel's channels side by side.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dense(nn.Module):
    """A linear layer whose rows do not depend on how many there are: `(B, in)` to `(B, out)`, float32.

    Matrix kernels take rows in tiles of four and treat what is left over apart, with the terms of a sum in
    another order, so that those rows differ in the last bit. Here every row is in a full tile.
    """

    TILE = 4

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(bias.detach().clone())
        self.tile = self.TILE

    def forward(self, x: Tensor) -> Tensor:
        """The rows added are zeros and are cut off again."""
        rows = x.shape[0]
        missing = (self.tile - rows % self.tile) % self.tile
        return functional.linear(functional.pad(x, (0, 0, 0, missing)), self.weight, self.bias)[:rows]


class Spread(nn.Module):
    """A dense layer from latents to small images: `(B, latent)` to `(B, parts * channels, side, side)`.

    It computes in float32 whatever the rest does: it is a hundredth of the work, and its errors would pass
    through every layer after it. Rounding its result would be the largest error that is left, so in bfloat16
    it leaves in two parts, the rounded values and what rounding took from them, rounded too: sixteen bits of
    mantissa where one part has eight. The layer after it adds them up.
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
        """Channels last in memory."""
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

    `parts`: what `Spread` gives of each input. `input_scale`: what the layer before multiplied each of its
    channels by. `scale`: what this one multiplies its own by, near 1, so that rounding leaves the biases
    exact: their errors, unlike those of weights, are the same for every pixel. A leaky ReLU passes positive
    factors on, and the next layer divides its weights by them.
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
        """Square kernels, strides and paddings only."""
        y = functional.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding)
        return functional.leaky_relu_(y, self.slope)


class ToPixels(nn.Module):
    """A convolution to one channel that keeps the size, computed for blocks of `BLOCK` x `BLOCK` pixels.

    One output channel would leave most lanes of a matrix kernel empty. Neighbouring pixels see nearly the
    same inputs, so the block's pixels become 16 channels of a larger convolution at stride 4, whose kernels are
    the given one at 16 offsets; a shuffle puts them into place. Twice the arithmetic, on all lanes.

    In bfloat16 the kernels come in two parts, as the images of `Spread` do and for the same reason: this layer
    adds up more numbers than any other, and what rounding takes from them fits into lanes that are left.
    `(B, in, H, W)` in `dtype` to float32 logits `(B, 1, H, W)`, H and W multiples of 4.
    """

    BLOCK = 4

    def __init__(self, kernel: Tensor, bias: Tensor | None, dtype: torch.dtype, *, input_scale: Tensor) -> None:
        """Of a kernel `(in, K, K)`, K odd, as a convolution (cross-correlation) with padding K // 2 has it."""
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
        """Parts and bias are added in float32."""
        y = functional.conv2d(x, self.weight, None, stride=self.block, padding=self.padding).float()
        if self.parts == 2:
            kernels, remainders = y.chunk(2, dim=1)
            y = kernels + remainders
        return functional.pixel_shuffle(y, self.block) + self.bias


def to_images(logits: Tensor) -> Tensor:
    """The sigmoid of pixel logits `(B, 1, H, W)`, in which rows do not depend on how many there are.

    Vector kernels take two vectors at a time and what is left over by another formula, which differs in the
    last bit. 28x28 pixels are 49 vectors of 16: with an even number of images nothing is left over.
    """
    rows = logits.shape[0]
    return torch.sigmoid(functional.pad(logits, (0, 0, 0, 0, 0, 0, 0, rows % 2)))[:rows]


def stable_rows(module: nn.Module) -> nn.Module:
    """The same module with every linear layer in it as `Dense` and its convolutions in channels-last memory.

    In place; for networks that are small enough to stay as they are otherwise.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Dense(child.weight, child.bias))
        else:
            stable_rows(child)
    return module.to(memory_format=torch.channels_last)

"""Networks that take a label beside their input.

Source: M. Mirza, S. Osindero, "Conditional Generative Adversarial Nets", 2014, arXiv:1411.1784.
"""

import torch
from torch import Tensor, nn


class LabelConditioned(nn.Module):
    """A network of latents that takes the label's embedding as further columns of the latent."""

    def __init__(self, embedding: nn.Embedding, network: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.network = network

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents `(B, latent)` and labels int64 `(B,)` to the output of the network."""
        output: Tensor = self.network(torch.cat([latents, self.embedding(labels)], dim=1))
        return output

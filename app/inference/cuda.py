"""A network on a CUDA device as one graph of kernels. Knows neither archives nor queues.

A network of small images is a few dozen kernels of microseconds each: launching them one by one costs more
than they do. A graph launches them at once, from fixed addresses and for one shape, which is also what makes
a row the same bits in every batch: kernels are chosen by the size of a batch.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

# TorchScript profiles a method on its first call and optimises it on the second; a graph must hold the outcome.
PASSES_BEFORE_CAPTURE = 3


class GraphedForward:
    """Rows on the CPU to float32 outputs on the CPU, through a graph of `rows` rows that the first call captures.

    More rows pass in blocks: `Network` pads batches to a multiple of a block. One stream and one set of buffers
    a network, so calls take turns.
    """

    def __init__(
        self, method: Callable[[Tensor], Tensor | tuple[Tensor, ...]], device: torch.device, rows: int
    ) -> None:
        self._method = method
        self._rows = rows
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        self._turn = threading.Lock()
        self._captured: _Buffers | None = None

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Raises RuntimeError for what CUDA refuses, ValueError for rows that do not fill whole blocks."""
        if not len(rows) or len(rows) % self._rows:
            raise ValueError(f"{len(rows)} rows do not fill blocks of {self._rows}")
        with self._turn, torch.inference_mode(), torch.cuda.stream(self._stream):
            blocks = [self._replay(block) for block in torch.split(rows, self._rows)]
        return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))

    def _replay(self, rows: Tensor) -> tuple[Tensor, ...]:
        if self._captured is None:
            self._captured = self._capture(rows)
        buffers = self._captured
        buffers.host_rows.copy_(rows)
        buffers.rows.copy_(buffers.host_rows, non_blocking=True)
        self._graph.replay()
        for host, output in zip(buffers.host_outputs, buffers.outputs, strict=True):
            host.copy_(output, non_blocking=True)
        self._stream.synchronize()
        # The next block writes over the pinned buffers.
        return tuple(host.clone() for host in buffers.host_outputs)

    def _capture(self, rows: Tensor) -> "_Buffers":
        fixed = rows.to(self._stream.device)
        for _ in range(PASSES_BEFORE_CAPTURE):
            self._method(fixed)
        self._stream.synchronize()
        with torch.cuda.graph(self._graph, stream=self._stream):
            given = self._method(fixed)
            outputs = tuple(output.float() for output in (given if isinstance(given, tuple) else (given,)))
        return _Buffers(fixed, outputs)


class _Buffers:
    """What a graph reads and writes on the device, and pinned memory on the host to copy from and to."""

    def __init__(self, rows: Tensor, outputs: tuple[Tensor, ...]) -> None:
        self.rows = rows
        self.outputs = outputs
        self.host_rows = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        self.host_outputs = tuple(torch.empty(o.shape, dtype=o.dtype, pin_memory=True) for o in outputs)

"""A network on a CUDA device as one CUDA graph.

A network for small images is a few dozen kernels of microseconds each, and launching them one by one takes longer than
running them. A graph launches them together, with fixed addresses and one batch size. The fixed size also gives a row
the same bits in every batch, because kernels are selected by batch size.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

# TorchScript profiles a method on the first call and optimizes it on the second; the graph must capture the result.
PASSES_BEFORE_CAPTURE = 3


class GraphedForward:
    """CPU tensors in, float32 CPU tensors out.

    The first call captures a graph for `rows` rows. Larger batches run in blocks of this size, to a multiple of which
    `Network` pads them. Calls are serialized, because the graph has one set of buffers.
    """

    def __init__(self, method: Callable[..., Tensor | tuple[Tensor, ...]], device: torch.device, rows: int) -> None:
        self._method = method
        self._rows = rows
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        self._turn = threading.Lock()
        self._captured: _Buffers | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Raises RuntimeError for a CUDA error, ValueError for rows that do not fill whole blocks."""
        rows = len(inputs[0])
        if not rows or rows % self._rows:
            raise ValueError(f"{rows} rows do not fill blocks of {self._rows}")
        with self._turn, torch.inference_mode(), torch.cuda.stream(self._stream):
            split = zip(*(torch.split(each, self._rows) for each in inputs), strict=True)
            blocks = [self._replay(block) for block in split]
        return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))

    def _replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._captured is None:
            self._captured = self._capture(inputs)
        buffers = self._captured
        for given, host, fixed in zip(inputs, buffers.host_inputs, buffers.inputs, strict=True):
            host.copy_(given)
            fixed.copy_(host, non_blocking=True)
        self._graph.replay()
        for host, output in zip(buffers.host_outputs, buffers.outputs, strict=True):
            host.copy_(output, non_blocking=True)
        self._stream.synchronize()
        # The next block overwrites the pinned buffers.
        return tuple(host.clone() for host in buffers.host_outputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> "_Buffers":
        # PyTorch assigns its 32 streams of each priority round-robin, so during a reload this network's stream may also
        # serve requests, whose kernels would be captured as well. No serving stream has this priority.
        stream = torch.cuda.Stream(self._stream.device, priority=-1)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.default_stream(stream.device))  # the stream that loaded the archive
        with torch.cuda.stream(stream):
            fixed = tuple(rows.to(stream.device) for rows in inputs)
            for _ in range(PASSES_BEFORE_CAPTURE):
                self._method(*fixed)
        stream.synchronize()
        # Other threads use the device at the same time: capture only the calls of this thread.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            given = self._method(*fixed)
            outputs = tuple(output.float() for output in (given if isinstance(given, tuple) else (given,)))
        return _Buffers(fixed, outputs)


class _Buffers:
    """The device tensors of a graph, and pinned host tensors to copy from and to."""

    def __init__(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.host_inputs = tuple(torch.empty(i.shape, dtype=i.dtype, pin_memory=True) for i in inputs)
        self.host_outputs = tuple(torch.empty(o.shape, dtype=o.dtype, pin_memory=True) for o in outputs)

"""Device, precision and how archives become networks. Knows no HTTP and no queue.

Beside `checkpoints/`, the one place in the service that names TorchScript.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.checkpoints.capabilities import CapabilityName as Capability
from app.checkpoints.manifest import Precision
from app.errors import InferenceFailed
from app.inference.cuda import GraphedForward
from app.inference.faults import fault_of
from app.inference.machine import computes_in_bfloat16, cores, find_device, runtime_facts

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
Outputs = tuple[Rows, ...]
# A batch, as tensors on the CPU, its rows and where it takes them their labels, to its outputs, as float32
# tensors on the CPU.
Forward = Callable[..., tuple[Tensor, ...]]


class MissingMethod(Exception):
    """The archive has no method of this name."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows `(n, ...)` together with the class of each, `(n,)`: what a network that takes labels computes from."""

    rows: Rows
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> "Labelled":
        return Labelled(self.rows[rows], self.labels[rows])


Inputs = Rows | Labelled


class Network:
    """One capability of a loaded archive: float32 rows in, with labels or without, float32 rows out, on the CPU.

    `row_multiple`: batches are padded to a multiple of so many rows. Kernels choose how to compute by the size
    of a batch, and treat what does not fill a tile apart; who loads a network finds out which multiple makes
    a row the same bits in every batch.
    """

    def __init__(self, forward: Forward, row_multiple: int = 1) -> None:
        self._forward = forward
        self.row_multiple = row_multiple

    def compute(self, chunks: Sequence[Inputs]) -> list[Outputs]:
        """One forward pass over the rows of all chunks; each chunk's outputs, in order.

        A chunk is `(rows, ...)`, all with labels or none, each of its outputs has as many rows. Raises
        InferenceFailed when the archive raises, gives another number of rows, or values that are not finite;
        OutOfMemory; DeviceLost.
        """
        # Arrays around the pass, not tensors: every operation of PyTorch lets go of the interpreter, and on a busy
        # event loop each time of asking for it again is a wait.
        total = sum(len(chunk) for chunk in chunks)
        padding = -total % self.row_multiple
        inputs = joined(chunks, padding)
        try:
            with torch.inference_mode():
                outputs = [output.numpy() for output in self._forward(*map(torch.from_numpy, inputs))]
        except Exception as error:
            raise fault_of(error) from error
        if any(len(output) != total + padding for output in outputs):
            raise InferenceFailed("the network gave a wrong number of rows")
        # The sum is finite if all its terms are: outputs are images, or numbers around one.
        if not all(math.isfinite(output[:total].sum()) for output in outputs):
            raise InferenceFailed("the network gave values that are not finite")
        results, first = [], 0
        for chunk in chunks:
            results.append(tuple(output[first : first + len(chunk)] for output in outputs))
            first += len(chunk)
        return results


def joined(chunks: Sequence[Inputs], padding: int) -> tuple[NDArray[Any], ...]:
    """The rows of all chunks and `padding` rows of zeros as one array, with labels as two."""
    if isinstance(chunks[0], Labelled):
        labelled = [chunk for chunk in chunks if isinstance(chunk, Labelled)]
        rows = [chunk.rows for chunk in labelled]
        return stacked(rows, padding), stacked([chunk.labels for chunk in labelled], padding)
    return (stacked(chunks, padding),)  # type: ignore[arg-type] # all have labels or none


def stacked(parts: Sequence[NDArray[Any]], padding: int) -> NDArray[Any]:
    """Arrays one after the other along the first axis, and `padding` rows of zeros."""
    if padding:
        parts = [*parts, np.zeros((padding, *parts[0].shape[1:]), parts[0].dtype)]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


class Runtime:
    """What computes: a device, a precision, and the id of everything the bytes of an answer depend on."""

    def __init__(self, device: str, precision: Literal["auto", "float32", "bfloat16"] = "auto") -> None:
        """Raises DeviceUnavailable for a device PyTorch does not know or cannot use."""
        self.device = find_device(device)
        self._precision = precision
        self.prepare_thread()
        # On a GPU the same kernels every time, and full float32: TensorFloat-32 has ten bits of mantissa.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    @staticmethod
    def prepare_thread() -> None:
        """To be called on every thread that computes: the number of threads a pass may use is a thread's own.

        How the work on a batch is shared out among threads depends on its size, and with it the last bit of a
        row: with 3, 6 or 8 threads equal rows differ. One thread a forward pass, and as many passes as cores.
        """
        torch.set_num_threads(1)

    @property
    def default_workers(self) -> int:
        """Forward passes that the device computes well at the same time."""
        return cores() if self.device.type == "cpu" else 1

    def precisions(self, available: Collection[Precision]) -> list[Precision]:
        """Those of `available`, which holds float32, to try in order.

        bfloat16 is tried alone where it was asked for, and before float32 under `auto` where the device computes
        in it. A model that does not ship it is tried in float32.
        """
        if "bfloat16" not in available or self._precision == "float32":
            return ["float32"]
        if self._precision == "bfloat16":
            return ["bfloat16"]
        return ["bfloat16", "float32"] if computes_in_bfloat16(self.device) else ["float32"]

    def facts(self, precision: Precision, max_rows: int) -> dict[str, str]:
        """Everything beside the weights that the bytes of an answer may depend on.

        On a GPU so is the largest batch, `max_rows`, as all batches have its shape (see `cuda`).
        """
        facts = {"precision": precision} | runtime_facts(self.device)
        return facts | {"rows": str(max_rows)} if self.device.type == "cuda" else facts

    def load(self, archive: bytes) -> torch.nn.Module:
        """The module of a TorchScript archive, on the device. The bytes are trusted: they are code.

        Raises RuntimeError when they are no archive.
        """
        with without_deprecations():
            module: torch.nn.Module = torch.jit.load(BytesIO(archive), map_location=self.device)  # type: ignore[no-untyped-call]
        # Convolutions run faster on channels that lie side by side, whatever layout an archive was saved in.
        return module.eval().to(memory_format=torch.channels_last)

    def networks(self, module: torch.nn.Module, capabilities: Sequence[Capability], rows: int) -> list[Network]:
        """The methods of these names, for batches of up to `rows`. Raises MissingMethod for one it lacks."""
        for capability in capabilities:
            if not callable(getattr(module, capability, None)):
                raise MissingMethod(capability)
        with without_deprecations():
            frozen = torch.jit.freeze(module, preserved_attrs=list(capabilities))
        methods = [getattr(frozen, capability) for capability in capabilities]
        if self.device.type == "cuda":
            # Kernels are chosen by the size of a batch, so all batches have one: see `cuda`.
            return [Network(GraphedForward(method, self.device, rows), row_multiple=rows) for method in methods]
        return [Network(partial(forward, method, self.device)) for method in methods]


def forward(
    method: Callable[..., Tensor | tuple[Tensor, ...]], device: torch.device, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """Inputs on the CPU through a method on `device`, its outputs as float32 on the CPU."""
    given = method(*(rows.to(device) for rows in inputs))
    return tuple(output.to("cpu", torch.float32) for output in (given if isinstance(given, tuple) else (given,)))


def id_of(facts: Mapping[str, str]) -> str:
    """A hash of a runtime's facts: the same bytes are promised within one."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def without_deprecations() -> Iterator[None]:
    """TorchScript is deprecated upstream; until the project's format changes there is nothing to do about it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", category)
        yield

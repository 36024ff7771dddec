"""The runtime: device, precision, and archives loaded as networks. Nothing else in the service uses TorchScript."""

import hashlib
import json
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.checkpoints.manifest import Precision
from app.errors import InferenceFailed, OutOfMemory, ServiceError
from app.inference.cuda import GraphedForward
from app.inference.machine import computes_in_bfloat16, cores, find_device, runtime_facts

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
# A batch as CPU tensors to its outputs as float32 CPU tensors.
Forward = Callable[..., tuple[Tensor, ...]]

# Ten more steps of niceness reduce the weight in the kernel's scheduler to a tenth.
BACKGROUND_NICENESS = 10

# Texts of allocation failures in PyTorch and the C++ library. TorchScript turns every exception of an archive into a
# RuntimeError and keeps only the text.
OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")


# Threads share the filters of warnings.
_FILTERS = threading.Lock()


class MissingMethod(Exception):
    """The archive lacks a method that the manifest names."""


class DeviceLost(BaseException):
    """The device is unusable for the rest of this process. A BaseException, so that it ends the worker thread."""


class Network:
    """One capability of a loaded archive: arrays in, float32 arrays out, on the CPU.

    row_multiple: batches are padded to a multiple of this number of rows. Kernels choose their algorithm by batch size
    and treat the rows of an incomplete tile separately. `inference.checks.warm_up` sets the smallest multiple with
    which a row has the same bits in every batch.
    row_ms: CPU time of a row of a full batch in milliseconds, measured by `warm_up`.
    """

    def __init__(self, forward: Forward, row_multiple: int = 1) -> None:
        self._forward = forward
        self.row_multiple = row_multiple
        self.row_ms = 0.0

    def run(self, *inputs: NDArray[Any]) -> tuple[Rows, ...]:
        """One forward pass over a batch: every input and output has the same number of rows.

        Raises InferenceFailed if the archive raises, returns a wrong number of rows or values that are not finite;
        OutOfMemory; DeviceLost.
        """
        # NumPy rather than PyTorch outside of the pass: each PyTorch operation releases the interpreter lock, and
        # regaining it on a busy process takes longer than the operation.
        rows = len(inputs[0])
        padded = [_padded(each, -rows % self.row_multiple) for each in inputs]
        try:
            with torch.inference_mode():
                outputs = [output.numpy() for output in self._forward(*map(torch.from_numpy, padded))]
        except Exception as error:
            raise service_error(error) from error
        if any(len(output) != len(padded[0]) for output in outputs):
            raise InferenceFailed("the network returned a wrong number of rows")
        results = tuple(output[:rows] for output in outputs)
        # The sum is finite if all terms are, as outputs are images or numbers of a similar magnitude.
        with np.errstate(invalid="ignore", over="ignore"):
            if not all(math.isfinite(output.sum()) for output in results):
                raise InferenceFailed("the network returned values that are not finite")
        return results


def _padded(rows: NDArray[Any], padding: int) -> NDArray[Any]:
    if not padding:
        return rows
    return np.concatenate([rows, np.zeros((padding, *rows.shape[1:]), rows.dtype)])


def service_error(error: Exception) -> ServiceError:
    """The error that a caller gets for an exception of a forward pass. Raises DeviceLost if no later pass can work.

    A CUDA error other than out of memory leaves a context in which every later call fails.
    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html, cudaError
    """
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(part in text for part in OUT_OF_MEMORY_TEXTS):
        return OutOfMemory()
    if isinstance(error, torch.AcceleratorError) or "cuda error" in text:
        raise DeviceLost from error
    return InferenceFailed("the network failed on this input")


class Runtime:
    """A device, a precision, and the facts that the bytes of a response depend on."""

    def __init__(self, device: str, precision: Literal["auto", "float32", "bfloat16"] = "auto") -> None:
        """Raises DeviceUnavailable for a device that PyTorch does not know or cannot use."""
        self.device = find_device(device)
        self._precision = precision
        self.prepare_thread()
        # Deterministic kernels on a GPU, and full float32: TensorFloat-32 has a 10-bit mantissa.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    @staticmethod
    def prepare_thread() -> None:
        """Limit the calling thread to one intra-op thread. Every thread that runs a network must call it.

        The split of a batch among threads depends on the batch size, and with it the last bit of a row: with 3, 6 or 8
        threads equal rows differ. Parallelism comes from one forward pass per core.
        """
        torch.set_num_threads(1)

    @classmethod
    def prepare_background_thread(cls) -> None:
        """As `prepare_thread`, for a thread that yields to all others: on Linux it gets a tenth of a core under load.

        The kernel preempts it even within a pass, which takes up to a second.
        """
        cls.prepare_thread()
        if sys.platform == "linux":  # elsewhere the priority is of the process
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + BACKGROUND_NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, 19))

    @property
    def default_workers(self) -> int:
        """The number of concurrent forward passes that suits the device."""
        return cores() if self.device.type == "cpu" else 1

    def precisions(self, available: Collection[Precision]) -> list[Precision]:
        """The precisions to try, in order, out of `available`, which contains float32.

        A model without a bfloat16 archive serves in float32. Under `auto`, bfloat16 is tried where the device
        computes faster in it, with float32 as the fallback.
        """
        if "bfloat16" not in available or self._precision == "float32":
            return ["float32"]
        if self._precision == "bfloat16":
            return ["bfloat16"]
        return ["bfloat16", "float32"] if computes_in_bfloat16(self.device) else ["float32"]

    def facts(self, precision: Precision, max_rows: int) -> dict[str, str]:
        """Everything besides the weights that the bytes of a response may depend on.

        On a GPU that includes the largest batch, `max_rows`, because every batch has that shape (see `cuda`).
        """
        facts = {"precision": precision} | runtime_facts(self.device)
        return facts | {"rows": str(max_rows)} if self.device.type == "cuda" else facts

    def load(self, archive: bytes) -> torch.nn.Module:
        """Load a TorchScript archive onto the device. An archive is code: the bytes must be trusted.

        Raises RuntimeError if the bytes are not an archive.
        """
        with without_deprecations():
            module: torch.nn.Module = torch.jit.load(BytesIO(archive), map_location=self.device)  # type: ignore[no-untyped-call]
        # Convolutions run faster on channels-last memory, whatever layout the archive was saved in.
        return module.eval().to(memory_format=torch.channels_last)

    def networks(
        self, module: torch.nn.Module, capabilities: Sequence[str], rows: int, *, freeze: bool = True
    ) -> dict[str, Network]:
        """The networks of these capabilities, for batches of up to `rows` rows. Raises MissingMethod.

        freeze: fold the weights into the code. The passes are faster, but for nested loops freezing takes minutes.
        """
        for capability in capabilities:
            if not callable(getattr(module, capability, None)):
                raise MissingMethod(capability)
        if freeze:
            with without_deprecations():
                module = torch.jit.freeze(module, preserved_attrs=list(capabilities))
        methods = {capability: getattr(module, capability) for capability in capabilities}
        if self.device.type == "cuda":
            # Kernels are chosen by batch size, so every batch has the same size: see `cuda`.
            return {
                name: Network(GraphedForward(method, self.device, rows), row_multiple=rows)
                for name, method in methods.items()
            }
        return {name: Network(partial(_forward, method, self.device)) for name, method in methods.items()}


def _forward(
    method: Callable[..., Tensor | tuple[Tensor, ...]], device: torch.device, *inputs: Tensor
) -> tuple[Tensor, ...]:
    outputs = method(*(rows.to(device) for rows in inputs))
    return tuple(output.to("cpu", torch.float32) for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def id_of(facts: Mapping[str, str]) -> str:
    """The id of a runtime: a hash of its facts. Byte identity is promised within one id."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Filter the deprecation warnings of TorchScript, the checkpoint format of this project."""
    with _FILTERS, warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", category)
        yield

"""Device, precision and the workers that compute. Knows no HTTP and no queue.

Beside `checkpoints/`, the one place in the service that names TorchScript.
"""

import asyncio
import hashlib
import json
import os
import platform
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import PIL
import torch
from torch import Tensor

from app.errors import InferenceFailed
from app.inference import latents

T = TypeVar("T")
Outputs = tuple[Tensor, ...]

# Matrix kernels treat the last rows of a batch apart when they do not fill a tile, and those rows then
# differ in the last bit. Batches are padded to a multiple of this, so that every row is an inner one.
PAD_ROWS = 4


class DeviceUnavailable(Exception):
    """The device named by the settings is not there."""


class Workers:
    """The pool of one device: at most `size` forward passes at the same time, first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="inference")

    async def __aenter__(self) -> Self:
        await self._free.acquire()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._free.release()

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` on a worker thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Let the threads end once they have nothing left to do."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Network:
    """One capability of a loaded archive: float32 rows in, float32 rows out, both on the CPU."""

    def __init__(self, function: Callable[[Tensor], Tensor | Outputs], device: torch.device) -> None:
        self._function = function
        self._device = device

    def compute(self, chunks: Sequence[Tensor]) -> list[Outputs]:
        """One forward pass over the rows of all chunks; each chunk's outputs, in order.

        A chunk is `(rows, ...)`, each of its outputs has as many rows. Raises InferenceFailed when the
        archive raises, gives another number of rows, or values that are not finite.
        """
        counts = [len(chunk) for chunk in chunks]
        total = sum(counts)
        padding = -total % PAD_ROWS
        rows = torch.cat([*chunks, chunks[0].new_zeros(padding, *chunks[0].shape[1:])])
        outputs = [output[:total] for output in self._forward(rows)]
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise InferenceFailed("the network gave values that are not finite")
        return list(zip(*(torch.split(output, counts) for output in outputs), strict=True))

    def _forward(self, rows: Tensor) -> Outputs:
        try:
            with torch.inference_mode():
                given = self._function(rows.to(self._device))
                outputs = given if isinstance(given, tuple) else (given,)
                outputs = tuple(output.to("cpu", torch.float32) for output in outputs)
        except Exception as error:
            raise InferenceFailed("the network failed on these rows") from error
        if any(len(output) != len(rows) for output in outputs):
            raise InferenceFailed("the network gave a wrong number of rows")
        return outputs


class Runtime:
    """What computes: a device, and the id of everything the bytes of an answer depend on."""

    def __init__(self, device: str) -> None:
        """Raises DeviceUnavailable for a device PyTorch does not know or cannot use."""
        self.device = find_device(device)
        # How the work on a batch is shared out among threads depends on its size, and with it the last bit of a
        # row: with 3, 6 or 8 threads equal rows differ. One thread a forward pass, and as many passes as cores.
        torch.set_num_threads(1)
        # On a GPU the same kernels every time, and full float32: TensorFloat-32 has ten bits of mantissa.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self.facts = runtime_facts(self.device)
        text = json.dumps(self.facts, sort_keys=True)
        self.id = hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def default_workers(self) -> int:
        """Forward passes that the device computes well at the same time."""
        return len(os.sched_getaffinity(0)) if self.device.type == "cpu" else 1

    def load(self, archive: bytes) -> torch.nn.Module:
        """The module of a TorchScript archive, on the device. The bytes are trusted: they are code.

        Raises RuntimeError when they are no archive.
        """
        with warnings.catch_warnings():
            # Deprecated upstream; until the project's format changes there is nothing to do about it.
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", category)
            module: torch.nn.Module = torch.jit.load(BytesIO(archive), map_location=self.device)  # type: ignore[no-untyped-call]
        return module.eval()

    def network(self, module: torch.nn.Module, capability: str) -> Network | None:
        """The module's method of that name, or None where it has none."""
        function = getattr(module, capability, None)
        return Network(function, self.device) if callable(function) else None


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises DeviceUnavailable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceUnavailable(f"device {name!r} cannot be used: {reason}") from error
    return device


def runtime_facts(device: torch.device) -> dict[str, str]:
    """Everything beside the weights that the bytes of an answer may depend on."""
    facts = {
        "precision": "float32",
        "device": device.type,
        "processor": processor_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "latents": latents.SCHEME,
    }
    if device.type == "cuda":
        facts["processor"] = torch.cuda.get_device_name(device)
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return facts


def processor_model() -> str:
    """The processor's name with family, model and stepping, where Linux tells them."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    first = cpuinfo.read_text().split("\n\n", 1)[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    return " ".join(fields[name] for name in wanted if name in fields) or platform.machine()

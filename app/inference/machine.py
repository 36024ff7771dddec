"""Facts about the machine: device, cores, and what the bytes of a response depend on."""

import ctypes
import math
import os
import platform
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import PIL
import scipy
import torch

from app.images import encode
from app.inference import latents

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


class DeviceUnavailable(Exception):
    """The device named in the settings cannot be used."""


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


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device computes faster in bfloat16 than in float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # PyTorch checks the current device
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # AMX of x86, and the extension of ARM. With avx512_bf16 alone, `gan` took twice as long as in float32.
    return device.type == "cpu" and not {"amx_bf16", "bf16"}.isdisjoint(processor_features())


def cores() -> int:
    """Cores that this process may use: its CPU affinity, limited by the CPU quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, granted_cores(CPU_MAX)))


def default_processes(device: str) -> int:
    """One process per core on a CPU; one on a GPU, because each process would need its memory."""
    # Check through NVML: a check that initializes CUDA would make it unusable in forked processes.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    return cores() if device == "cpu" or (device == "auto" and not torch.cuda.is_available()) else 1


def return_free_memory() -> None:
    """Return freed memory to the system, with glibc. Loading the shipped models leaves 27 MB of it in each process."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def granted_cores(path: Path) -> int:
    """The CPU quota in a cgroup v2 `cpu.max` file in cores, rounded up; 2^31 without a quota.

    The file holds the quota and the period in microseconds, as in `150000 100000`, or `max` for the quota.
    """
    try:
        granted, period = path.read_text().split()
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError):
        return 2**31


@cache
def runtime_facts(device: torch.device) -> dict[str, str]:
    """The device and the versions of the libraries."""
    facts = {
        "device": device.type,
        "processor": processor_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "scipy": scipy.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "png": encode.SCHEME,
        "latents": latents.SCHEME,
    }
    if device.type == "cuda":
        facts["processor"] = torch.cuda.get_device_name(device)
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return facts


def processor_model() -> str:
    """The name of the processor, on Linux with family, model and stepping."""
    fields = cpuinfo()
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    return " ".join(fields[name] for name in wanted if name in fields) or platform.processor() or platform.machine()


def processor_features() -> set[str]:
    """The instruction sets of the processor by their Linux names; empty on other systems."""
    fields = cpuinfo()
    return set(fields.get("flags", fields.get("Features", "")).split())


def cpuinfo() -> dict[str, str]:
    """The entry of the first core in /proc/cpuinfo; empty on other systems."""
    source = Path("/proc/cpuinfo")
    if not source.exists():
        return {}
    first = source.read_text().split("\n\n", 1)[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in fields.items()}

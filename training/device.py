"""The device and the precision of a run."""

from pathlib import Path
from typing import Literal

import torch


class DeviceUnavailable(Exception):
    """PyTorch cannot compute on the device."""


def choose_device(name: str) -> torch.device:
    """The device of a PyTorch name; `auto` is CUDA, else MPS, else the CPU.

    Raises DeviceUnavailable with a message of one line for unknown names and absent devices.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
        else:
            name = "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # an absent device fails here rather than after the data are loaded
    except Exception as error:  # of a type and length that depend on the backend
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceUnavailable(f"device {name!r} cannot be used: {reason}") from error
    return device


def choose_precision(name: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype of forward passes; `auto` is bfloat16 where the hardware computes faster in it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and _has_matrix_unit():
        return torch.bfloat16
    return torch.float32


def _has_matrix_unit() -> bool:
    # PyTorch has no public function that tells. With the vector instructions avx512_bf16 alone, steps in bfloat16 took
    # 1.2 (vae) to 1.7 times (flow-matching) as long as in float32.
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()

"""Which device a run uses, and in which precision. Knows no family."""

from pathlib import Path
from typing import Literal

import torch


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU; any other name is taken as PyTorch reads it.

    Raises RuntimeError for a name PyTorch does not know or a device that is not there.
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
        torch.ones(1, device=device).item()  # an absent device fails here, not an hour later
    except Exception as error:  # each backend has a type of its own for being absent, and a long story
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(f"device {name!r} cannot be used: {reason}") from error
    return device


def choose_precision(name: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype of forward passes. `auto` is bfloat16 where the hardware multiplies in it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # PyTorch runs bfloat16 on any CPU, slowly where the processor has no instruction for it, and has
    # no public question for that.
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags

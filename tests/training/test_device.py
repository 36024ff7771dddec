"""Where a run computes, and in which precision."""

from pathlib import Path

import pytest
import torch

from training.device import choose_device, choose_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_cuda_else_mps_else_the_cpu(monkeypatch, cuda, mps, expected):
    tried, ones = [], torch.ones

    def tried_on(size, device):
        tried.append(device)
        return ones(size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", tried_on)
    assert choose_device("auto") == torch.device(expected)
    assert tried == [torch.device(expected)], "the device is tried before hours are spent on the data"


def test_a_named_device_overrides_what_is_available(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "mps", "xpu", "hpu", "xla", "meta", "banana", "cuda:x", "", "cpu\ncpu"])
def test_an_absent_device_is_one_line_that_names_it(name):
    if {"mps": torch.backends.mps.is_available(), "xpu": torch.xpu.is_available()}.get(name):
        pytest.skip(f"this machine has {name}")
    with pytest.raises(RuntimeError) as caught:
        choose_device(name)
    message = str(caught.value)
    assert message.startswith(f"device {name!r} cannot be used: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
def test_a_named_precision_is_taken_as_it_is(device):
    assert choose_precision("float32", device) == torch.float32
    assert choose_precision("bfloat16", device) == torch.bfloat16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 clzero", torch.bfloat16),
        ("flags : fpu amx_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu avx2 avx512f avx512bw", torch.float32),
        (None, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_that_multiplies_in_it(monkeypatch, flags, expected):
    monkeypatch.setattr(Path, "exists", lambda path: flags is not None)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_on_cuda_where_it_is_not_emulated(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_precision("auto", CUDA) == (torch.bfloat16 if native else torch.float32)


def test_auto_is_float32_on_mps():
    assert choose_precision("auto", MPS) == torch.float32

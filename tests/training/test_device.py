from pathlib import Path

import pytest
import torch

from training.device import choose_device, choose_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, CUDA), (True, False, CUDA), (False, True, MPS), (False, False, CPU)],
)
def test_auto_is_cuda_else_mps_else_the_cpu(monkeypatch, cuda, mps, expected):
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))
    assert choose_device("auto") == expected
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "meta", "banana", "cpu\ncpu"])
def test_an_absent_device_is_named_in_an_error_of_one_line(name):
    with pytest.raises(RuntimeError) as caught:
        choose_device(name)
    assert repr(name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 clzero", torch.bfloat16),
        ("flags : fpu amx_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu avx2 avx512f avx512bw", torch.float32),
        (None, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_with_instructions_for_it(monkeypatch, flags, expected):
    monkeypatch.setattr(Path, "exists", lambda path: flags is not None)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_on_cuda_unless_it_is_emulated(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_precision("auto", CUDA) == (torch.bfloat16 if native else torch.float32)
    assert choose_precision("auto", MPS) == torch.float32

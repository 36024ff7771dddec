"""The device and the precision of a run."""

from pathlib import Path

import pytest
import torch

from training.device import DeviceUnavailable, choose_device, choose_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "banana", "cpu\ncpu"])
def test_an_absent_device_is_named_in_an_error_of_one_line(name):
    with pytest.raises(DeviceUnavailable) as caught:
        choose_device(name)
    assert repr(name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 clzero", torch.float32),
        ("flags : fpu amx_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu avx2 avx512f avx512bw", torch.float32),
        (None, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_with_a_matrix_unit(monkeypatch, flags, expected):
    monkeypatch.setattr(Path, "exists", lambda path: flags is not None)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert choose_precision("auto", CPU) == expected

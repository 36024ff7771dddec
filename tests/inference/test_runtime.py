"""Devices, precisions, and networks as functions of arrays."""

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import get_native_id

import numpy as np
import pytest
import torch

from app.errors import InferenceFailed, OutOfMemory
from app.inference.machine import DeviceUnavailable, computes_in_bfloat16, cores, find_device, processor_model
from app.inference.runtime import DeviceLost, Network, Rows, Runtime, id_of, service_error

CPU = torch.device("cpu")


def ones(rows: int) -> Rows:
    return np.ones((rows, 2), dtype=np.float32)


def test_auto_is_cuda_where_available_else_the_cpu():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "", "cpu:x", "meta"])
def test_an_unusable_device_is_refused_in_one_line_that_names_it(name):
    with pytest.raises(DeviceUnavailable) as caught:
        find_device(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)


def test_the_runtime_id_depends_on_precision_versions_and_processor_but_not_on_the_batch_size_of_a_cpu():
    facts = Runtime("cpu").facts("float32", 8)
    assert facts == Runtime("cpu").facts("float32", 32)
    assert id_of(facts) != id_of(Runtime("cpu").facts("bfloat16", 8))
    assert {"float32", torch.__version__, np.__version__, processor_model()} <= set(facts.values())


@pytest.mark.parametrize(
    ("wanted", "available", "flags", "tried"),
    [
        ("float32", ["float32", "bfloat16"], "amx_bf16", ["float32"]),
        ("bfloat16", ["float32", "bfloat16"], "fma", ["bfloat16"]),
        ("bfloat16", ["float32"], "amx_bf16", ["float32"]),
        ("auto", ["float32"], "amx_bf16", ["float32"]),
        ("auto", ["float32", "bfloat16"], "fma avx512_bf16", ["float32"]),
        ("auto", ["float32", "bfloat16"], "fma avx512_bf16 amx_bf16", ["bfloat16", "float32"]),
    ],
)
def test_precisions_follow_the_setting_the_checkpoint_and_the_processor(monkeypatch, wanted, available, flags, tried):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": flags})
    assert computes_in_bfloat16(CPU) == ("amx_bf16" in flags)
    assert Runtime("cpu", wanted).precisions(available) == tried


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_the_kernel_prefers_all_other_threads_to_one_in_the_background():
    def priority(prepare):
        with ThreadPoolExecutor(1, initializer=prepare) as pool:
            return pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, get_native_id())).result()

    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert priority(Runtime.prepare_thread) == usual
    assert priority(Runtime.prepare_background_thread) == min(usual + 10, 19)


def test_a_forward_pass_has_one_thread_and_there_is_a_pass_for_each_core():
    assert Runtime("cpu").default_workers == cores()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("content", "granted"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 64), (None, 64)]
)
def test_a_cpu_quota_limits_the_cores(tmp_path, monkeypatch, content, granted):
    monkeypatch.setattr("app.inference.machine.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert cores() == granted


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_batches_are_padded_to_the_row_multiple_and_every_row_comes_back_with_its_label(multiple):
    sizes = []

    def forward(rows: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(rows))
        return rows * labels[:, None], labels.float()

    for size in range(1, 18):
        scaled, labels = Network(forward, multiple).run(ones(size), np.arange(size))
        assert scaled[:, 0].tolist() == labels.tolist() == list(range(size))
    assert sizes == [math.ceil(size / multiple) * multiple for size in range(1, 18)]


def fail(error: Exception, _: torch.Tensor) -> tuple[torch.Tensor]:
    raise error


@pytest.mark.parametrize(
    "forward",
    [
        partial(fail, RuntimeError("a secret")),
        lambda rows: (rows[1:],),
        lambda rows: (rows / 0,),
        lambda rows: (torch.stack([rows / 0, -rows / 0], 1),),
        lambda rows: (rows, rows * float("nan")),
    ],
    ids=["raises", "loses a row", "infinite", "infinite of both signs", "not a number"],
)
def test_a_pass_without_good_rows_fails_and_the_caller_is_not_told_the_cause(forward):
    with pytest.raises(InferenceFailed) as caught:
        Network(forward).run(ones(3))
    assert "secret" not in caught.value.detail


def test_a_bad_value_in_the_padding_is_ignored():
    (rows,) = Network(lambda rows: (rows / rows,), 4).run(ones(3))  # the padding is zeros
    assert np.array_equal(rows, ones(3))


def test_a_pass_records_no_gradient():
    weight = torch.ones(2, requires_grad=True)
    (rows,) = Network(lambda rows: (rows * weight,)).run(ones(1))
    assert np.array_equal(rows, ones(1))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("std::bad_alloc")],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_allocation_is_out_of_memory(error):
    assert isinstance(service_error(error), OutOfMemory)
    with pytest.raises(OutOfMemory):
        Network(partial(fail, error)).run(ones(1))


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), torch.AcceleratorError("")], ids=repr
)
def test_a_lost_device_ends_the_thread(error):
    with pytest.raises(DeviceLost):
        Network(partial(fail, error)).run(ones(1))

"""Devices, networks and workers."""

import math

import numpy as np
import pytest
import torch

from app.errors import InferenceFailed
from app.inference.machine import DeviceUnavailable, computes_in_bfloat16, cores, find_device, processor_model
from app.inference.runtime import Labelled, Network, Rows, Runtime, id_of

CPU = torch.device("cpu")


def ones(rows: int) -> Rows:
    return np.ones((rows, 2), dtype=np.float32)


def test_auto_is_cuda_where_there_is_one_and_else_the_cpu():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "", "cpu:x", "meta"])
def test_a_device_that_cannot_compute_is_refused_in_one_line(name):
    with pytest.raises(DeviceUnavailable) as caught:
        find_device(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)


def test_the_runtime_id_is_that_of_its_facts():
    one, other = Runtime("cpu"), Runtime("cpu")
    facts = one.facts("float32", 8)
    assert id_of(facts) == id_of(other.facts("float32", 8)) != id_of(one.facts("bfloat16", 8))
    assert len(id_of(facts)) == 16
    assert facts == one.facts("float32", 32), "on a CPU the size of a batch is nothing that bytes depend on"
    assert facts["precision"] == "float32"
    assert facts["torch"] == torch.__version__
    assert processor_model() in facts.values()


@pytest.mark.parametrize(
    ("wanted", "available", "tried"),
    [
        ("float32", ["float32", "bfloat16"], ["float32"]),
        ("bfloat16", ["float32", "bfloat16"], ["bfloat16"]),
        ("bfloat16", ["float32"], ["float32"]),
        ("auto", ["float32"], ["float32"]),
    ],
)
def test_a_precision_that_is_asked_for_and_there_is_the_only_one_tried(wanted, available, tried):
    assert Runtime("cpu", wanted).precisions(available) == tried


@pytest.mark.parametrize(("flags", "tried"), [("fma avx512_bf16", ["bfloat16", "float32"]), ("fma", ["float32"])])
def test_auto_tries_bfloat16_first_where_the_processor_computes_in_it(monkeypatch, flags, tried):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": flags})
    assert computes_in_bfloat16(CPU) == (len(tried) == 2)
    assert Runtime("cpu").precisions(["float32", "bfloat16"]) == tried


def test_one_thread_computes_a_pass_and_every_core_has_a_pass():
    # With 3, 6 or 8 threads, how a batch is shared out among them shows in the last bit of its rows.
    runtime = Runtime("cpu")
    assert torch.get_num_threads() == 1
    assert runtime.default_workers == cores()


@pytest.mark.parametrize(
    ("content", "granted"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 64), (None, 64)]
)
def test_a_container_with_a_quota_gets_no_more_workers_than_that(tmp_path, monkeypatch, content, granted):
    monkeypatch.setattr("app.inference.machine.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert cores() == granted


def test_each_chunk_gets_its_own_rows_back_in_order():
    network = Network(lambda rows: (rows * 2, rows.sum(dim=1)))
    chunks = [np.arange(3 * size, dtype=np.float32).reshape(size, 3) + size for size in (1, 5, 2)]
    for chunk, (doubled, sums) in zip(chunks, network.compute(chunks), strict=True):
        assert np.array_equal(doubled, chunk * 2)
        assert np.array_equal(sums, chunk.sum(axis=1))


@pytest.mark.parametrize("multiple", [1, 8])
def test_labels_go_with_their_rows(multiple):
    network = Network(lambda rows, labels: (rows * labels[:, None], labels.float()), multiple)
    chunks = [Labelled(ones(size), np.arange(size)) for size in (1, 5, 2)]
    for chunk, (scaled, labels) in zip(chunks, network.compute(chunks), strict=True):
        assert labels.tolist() == chunk.labels.tolist()
        assert scaled[:, 0].tolist() == chunk.labels.tolist()
    part = Labelled(ones(9), np.arange(9))[3:5]
    assert (len(part), part.labels.tolist()) == (2, [3, 4])


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_batches_are_padded_to_the_networks_multiple(multiple):
    seen = []

    def remember(rows: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(len(rows))
        return (rows,)

    for size in range(1, 18):
        ((made,),) = Network(remember, multiple).compute([ones(size)])
        assert len(made) == size
    assert seen == [math.ceil(size / multiple) * multiple for size in range(1, 18)]


def fail(_: torch.Tensor) -> tuple[torch.Tensor]:
    raise RuntimeError("a secret of the inside")


@pytest.mark.parametrize(
    "function",
    [fail, lambda rows: (rows[1:],), lambda rows: (rows / 0,), lambda rows: (rows, rows * float("nan"))],
    ids=["raises", "loses a row", "infinite", "not a number"],
)
def test_a_pass_that_gives_no_good_rows_fails_without_telling_why_to_the_caller(function):
    with pytest.raises(InferenceFailed) as caught:
        Network(function).compute([ones(3)])
    assert "secret" not in caught.value.detail


def test_a_bad_value_in_the_padding_fails_nobody():
    def poison_zeros(rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (rows / rows,)  # padding is zeros

    ((made,),) = Network(poison_zeros, 4).compute([ones(3)])
    assert np.array_equal(made, ones(3))


def test_no_gradient_is_recorded():
    weight, recorded = torch.ones(2, requires_grad=True), []

    def weigh(rows: torch.Tensor) -> tuple[torch.Tensor]:
        made = rows * weight
        recorded.append(made.requires_grad)
        return (made,)

    Network(weigh).compute([ones(1)])
    assert recorded == [False]

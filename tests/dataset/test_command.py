"""The command: the same bytes however it ran, going on after any stop, and one line for each mistake."""

import errno
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch

from app.dataset import local_processes
from app.dataset.arguments import FORMATS
from app.dataset.shards import make_shard
from app.images.encode import from_uint8
from app.inference.model import load_model
from app.inference.runtime import Runtime
from tests.conftest import ROOT, contents
from tests.dataset.conftest import COUNT
from tests.tiny_models import DIGITS, ConditionalGan, write, write_checkpoints

# The command in a process of its own, whose children do with shard 1 what the line says.
SCRIPT = """
import os, signal, sys, threading
from app.__main__ import run
from app.dataset import local_processes, shards

shards.IMAGES_PER_SHARD = 10
make = shards.make_shard

def make_shard(setup, plan, shard):
    if shard == 1:
        {line}
    return make(setup, plan, shard)

local_processes.make_shard = make_shard
run()
"""


@pytest.fixture
def in_processes(models, tmp_path):
    """Runs the command with two processes, of which one does with shard 1 what the line says."""

    def run(out: Path, line: str = "pass") -> subprocess.CompletedProcess[str]:
        options = [f"--count={COUNT}", "--model=cgan", "--seed=8", "--format=npz", f"--out={out}", "--processes=2"]
        return subprocess.run(
            [sys.executable, "-c", SCRIPT.format(line=line), "dataset", *options],
            env=os.environ | {"DIGITS_MODELS_DIR": str(models)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@contextmanager
def at_shard_1(effect: Callable[[], object]) -> Iterator[None]:
    """Something happens before shard 1 is made in this process."""

    def make(setup, plan, shard):
        if shard == 1:
            effect()
        return make_shard(setup, plan, shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_processes, "make_shard", make)
        yield


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def error(capsys) -> str:
    """The one line that the command has printed."""
    line: str
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_data_set_has_the_same_bytes_from_one_process_and_from_several(command, in_processes, tmp_path):
    assert command(tmp_path / "one") == 0
    assert in_processes(tmp_path / "two").returncode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_manifest_names_all_that_the_bytes_depend_on_and_the_digests_of_the_shards(command, tmp_path):
    assert command(tmp_path / "out", label="balanced") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["request"] == {"model": "cgan", "count": COUNT, "seed": 8, "label": "balanced", "format": "npz"}
    assert manifest["command"].startswith("python -m app dataset --model=cgan")
    assert len(manifest["generator"]["digest"]) == 64
    assert {"torch", "processor"} <= set(manifest["facts"])
    files = [(tmp_path / "out" / f"train-{shard:05d}.npz").read_bytes() for shard in range(3)]
    assert [each["sha256"] for each in manifest["shards"]] == [hashlib.sha256(file).hexdigest() for file in files]
    assert [each["first"] for each in manifest["shards"]] == [0, 10, 20]


def test_the_card_counts_the_images_that_the_classifier_reads_as_their_label(command, tmp_path, models):
    assert command(tmp_path / "out", label="balanced") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    files = [np.load(tmp_path / "out" / f"train-{shard:05d}.npz") for shard in range(3)]
    images, labels = (np.concatenate([file[name] for file in files]) for name in ("images", "labels"))
    reader = load_model(models / "reader" / "manifest.json", Runtime("cpu"), COUNT)
    read = reader.run("classify", from_uint8(images)[:, None])[0].argmax(axis=1)
    agreeing = np.sum([each["agreeing"] for each in manifest["shards"]], axis=0)
    assert agreeing.tolist() == [int(((labels == label) & (read == label)).sum()) for label in range(10)]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{(labels == read).mean():.2%}" in card
    assert f"| 4 | 3 | {3 / COUNT:.2%} |" in card


def test_without_a_classifier_of_such_images_the_card_says_so(command, tmp_path):
    assert command(tmp_path / "out", model="sketch") == 0
    assert "not measured" in (tmp_path / "out" / "README.md").read_text()


def test_a_data_set_among_the_checkpoints_is_refused(command, models, capsys):
    assert command(models / "new") == 1
    assert "holds checkpoints only" in error(capsys)
    assert not (models / "new").exists()


def test_a_killed_start_leaves_a_folder_that_the_same_command_takes(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".progress.jsonl.x1.partial").write_bytes(b"{")
    assert command(tmp_path / "out") == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(command, tmp_path, capsys, form):
    assert command(tmp_path / "whole", format=form) == 0
    with at_shard_1(interrupt):
        assert command(tmp_path / "out", format=form) == 128 + signal.SIGINT
    assert "run the same command again" in error(capsys)
    with at_shard_1(lambda: None):
        assert command(tmp_path / "out", format=form) == 0
    assert "wrote 2 of 3 shards" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_signals_do_what_they_did_before_when_the_command_has_ended(command, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with at_shard_1(interrupt):
        command(tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_stops_processes_that_would_not_end(in_processes, command, tmp_path):
    done = in_processes(tmp_path / "out", "os.kill(os.getppid(), signal.SIGTERM); threading.Event().wait()")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert command(tmp_path / "out") == 0


def test_a_process_that_is_killed_costs_only_its_shard(in_processes, command, tmp_path):
    done = in_processes(tmp_path / "out", "os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "a process was killed" in line
    assert command(tmp_path / "whole") == command(tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("full", ["shard", "record"])
def test_a_full_disk_is_one_line_and_finished_shards_stay(command, tmp_path, capsys, full):
    assert command(tmp_path / "whole") == 0
    out = tmp_path / "out"
    real_write, real_open = Path.write_bytes, Path.open

    def write_bytes(path: Path, content: bytes) -> int:
        if full == "shard" and "00001" in path.name:
            real_write(path, content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(path, content)

    def opened(path: Path, mode: str = "r", *arguments, **options):
        if full == "record" and mode == "a" and (out / "train-00001.npz").exists():
            with real_open(path, mode) as file:
                file.write('{"shard":1,"fir')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, mode, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        patch.setattr(Path, "open", opened)
        assert command(out) == 1
    assert "No space left on device" in error(capsys)
    assert not list(out.glob(".*.tmp"))
    assert command(out) == 0
    assert "wrote 2 of 3 shards" in capsys.readouterr().out
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_data_set_is_verified_and_a_damaged_shard_is_made_again(command, tmp_path, capsys, form):
    assert command(tmp_path / "out", format=form) == 0
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert command(tmp_path / "out", format=form) == 0
    assert "verified all 3 shards" in capsys.readouterr().out
    path = max(tmp_path / "out" / name for name in before if name.endswith(("parquet", "tar", "npz", "png", "ubyte")))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    if form != "idx":
        min(tmp_path / "out" / name for name in before if name.endswith(("parquet", "tar", "npz", "png"))).unlink()
    assert command(tmp_path / "out", format=form) == 0
    assert "wrote" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_bytes_behind_an_idx_file_are_removed(command, tmp_path, name):
    assert command(tmp_path / "out", format="idx") == 0
    before = contents(tmp_path / "out")
    with (tmp_path / "out" / "MNIST" / "raw" / name).open("ab") as file:
        file.write(b"?")
    assert command(tmp_path / "out", format="idx") == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("parquet", "data/train-00003-of-00003.parquet"),
        ("webdataset", "train-000003.tar"),
        ("npz", "notes.txt"),
        ("idx", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("folder", "3/25.png"),
        ("folder", "ten/10.png"),
    ],
)
def test_a_file_that_is_not_of_the_data_set_is_named_and_stays(command, tmp_path, capsys, form, name, finished):
    with at_shard_1(interrupt if not finished else lambda: None):
        command(tmp_path / "out", format=form, label="balanced")
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / "out" / name).write_text("mine")
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert command(tmp_path / "out", format=form, label="balanced") == 1
    assert f"out/{name.removesuffix('/10.png')}: is not of this data set" in error(capsys)
    assert contents(tmp_path / "out") == before


def test_hidden_files_may_stand_beside_a_data_set(command, tmp_path):
    assert command(tmp_path / "out") == 0
    (tmp_path / "out" / ".git").mkdir()
    for name in (".gitattributes", ".git/config"):
        (tmp_path / "out" / name).write_text("")
    assert command(tmp_path / "out") == 0


@pytest.mark.parametrize("change", [{"seed": 9}, {"count": 26}, {"label": "7"}, {"model": "cvae"}, {"format": "idx"}])
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_another_data_set_is_refused_and_stays(command, tmp_path, capsys, change, finished):
    with at_shard_1(interrupt if not finished else lambda: None):
        command(tmp_path / "out")
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert command(tmp_path / "out", **change) == 1
    assert f"holds another data set, {next(iter(change))}" in error(capsys)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["manifest.json", ".progress.jsonl", "thesis.tex"])
@pytest.mark.parametrize("text", ["", "{}", "[1]", "never\n", '{"shards": 5, "schema_version": 1}'])
def test_a_folder_with_other_files_is_refused_and_stays(command, tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    assert command(tmp_path) == 1
    assert "data set" in error(capsys)
    assert contents(tmp_path) == {name: text.encode()}


def test_a_file_in_place_of_the_folder_is_one_line(command, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert command(tmp_path / "out") == 1
    assert "out: File exists" in error(capsys)


def test_two_commands_do_not_write_one_folder(command, tmp_path, capsys):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert command(tmp_path) == 1
    finally:
        os.close(descriptor)
    assert "another process" in error(capsys)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model": "plain", "label": "balanced"}, "cannot generate by label; these can: boots, cgan"),
        ({"label": "11"}, "has the classes 0, 1, 2"),
        ({"label": ""}, "has the classes 0, 1, 2"),
        ({"model": "nothing"}, "no checkpoint nothing; these generate images: boots, cgan"),
        ({"model": "reader"}, "generates nothing: reader; these"),
        ({"model": "../cgan"}, "no checkpoint ../cgan"),
    ],
)
def test_what_the_model_cannot_do_is_one_line(command, tmp_path, capsys, arguments, text):
    assert command(tmp_path / "out", **arguments) == 1
    assert text in error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": 0},
        {"count": -1},
        {"count": "many"},
        {"count": 2**31},
        {"format": "csv"},
        {"seed": 2**53},
        {"processes": 0},
        {"ray": "auto"},  # with --processes
        {"model": None},
    ],
)
def test_bad_arguments_end_with_status_2(command, tmp_path, arguments):
    with pytest.raises(SystemExit) as caught:
        command(tmp_path / "out", **arguments)
    assert caught.value.code == 2
    assert not (tmp_path / "out").exists()


def test_bad_settings_end_with_status_2(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIGITS_DEVICE", "abacus")
    assert command(tmp_path / "out") == 1
    assert "abacus" in error(capsys)
    monkeypatch.setenv("DIGITS_MAX_BATCH_ROWS", "many")
    assert command(tmp_path / "out") == 2
    assert "DIGITS_MAX_BATCH_ROWS" in error(capsys)


def test_a_damaged_checkpoint_is_one_line(command, tmp_path, monkeypatch, capsys):
    write_checkpoints(tmp_path / "models")
    (tmp_path / "models" / "cgan" / "cgan.pt").write_bytes(b"")
    assert command(tmp_path / "whole") == 0
    monkeypatch.setenv("DIGITS_MODELS_DIR", str(tmp_path / "models"))
    assert command(tmp_path / "out") == 1
    assert "cgan.pt" in error(capsys)


def test_a_checkpoint_that_was_replaced_is_another_data_set(command, tmp_path, monkeypatch, capsys):
    write_checkpoints(tmp_path / "models")
    with at_shard_1(interrupt):
        command(tmp_path / "out")
    capsys.readouterr()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        rmtree(tmp_path / "models" / "cgan")
        write(tmp_path / "models", "cgan", ConditionalGan(10), DIGITS)
    monkeypatch.setenv("DIGITS_MODELS_DIR", str(tmp_path / "models"))
    assert command(tmp_path / "out") == 1
    assert "digest" in error(capsys)


@pytest.mark.parametrize(("package", "arguments"), [("tqdm", {}), ("pyarrow", {"format": "parquet"})])
def test_a_missing_extra_is_one_line_that_names_it(command, tmp_path, monkeypatch, capsys, package, arguments):
    monkeypatch.setitem(sys.modules, package, None)
    assert command(tmp_path / "out", **arguments) == 1
    assert "extra `dataset`" in error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1:many", "[::1"])
def test_an_address_that_nobody_answers_is_one_line(command, tmp_path, capsys, address):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address.format(listener.getsockname()[1])
    assert command(tmp_path / "out", ray=address, processes=None) == 1
    assert address in error(capsys)
    assert not (tmp_path / "out").exists()


def test_without_ray_its_address_is_one_line_that_names_the_extra(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command(tmp_path / "out", ray="auto", processes=None) == 1
    assert "extra `ray`" in error(capsys)

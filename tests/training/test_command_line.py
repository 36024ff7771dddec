"""`python -m training`: flags, and failures on one line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, get_args

import pytest
from PIL import Image

from app.checkpoints.store import read_manifest
from tests.training.conftest import SMALL
from training import mnist as pinned
from training import run, trainer
from training.__main__ import main
from training.data import Dataset
from training.families import families
from training.families.vae import VaeConfig
from training.run_lock import run_lock
from training.state import read_state

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command_line(monkeypatch, capsys) -> Run:
    """Runs `python -m training`; returns the exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        try:
            status = main()
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def mnist(tmp_path: Path, raw_files, no_network) -> Path:
    """A data directory with a tiny MNIST in it."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in raw_files.items():
        (raw / name).write_bytes(content)
    return tmp_path / "data"


@pytest.fixture
def pictures(dataset: Dataset, tmp_path: Path) -> Path:
    """A folder of labelled images, one subfolder per class."""
    folder = tmp_path / "strokes"
    for number, (image, label) in enumerate(zip(dataset.train_images, dataset.train_labels, strict=True)):
        (folder / str(int(label))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / str(int(label)) / f"{number}.png")
    return folder


SHARED: dict[str, object] = {
    "epochs": 1, "batch_size": 8, "seed": 7, "train_images": 17, "device": "cpu", "tensorboard": False,
    "precision": "float32",
}  # fmt: skip
DEFAULTS = {name: family.config().model_dump(mode="json") for name, family in families().items()}  # type: ignore[call-arg]

# Where one more than the default is not a valid choice, or a large network.
OTHERS: dict[str, object] = {"factor": 2, "size": 14, "note": "a note"} | SMALL


def other(family: str, name: str) -> Any:
    """A value of a choice that is not its default."""
    if name in OTHERS:
        return OTHERS[name]
    field, default = families()[family].config.model_fields[name], DEFAULTS[family][name]
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str) and choice != default]
    if choices:
        return choices[-1]
    if isinstance(default, bool):
        return not default
    if isinstance(default, float):
        return 0.75 * default or 0.25
    return (default or 0) + 1 if isinstance(default, int | None) else default


def flags(values: dict[str, object]) -> list[object]:
    """The flags of these values."""
    words: list[object] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", value]
    return words


def test_a_checkpoint_is_measured_and_a_classifier_trained_by_one_command_each(command_line, mnist, tmp_path):
    places = {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"}
    assert command_line("train", "vae", *flags(SHARED | places))[0] == 0
    document = tmp_path / "README.md"
    document.write_text("<!-- quality: begin -->\n<!-- quality: end -->\n")
    status, printed, errors = command_line("evaluate", "vae", *flags({**places, "seeds": 4, "document": document}))
    assert (status, errors) == (0, "")
    manifest = read_manifest(tmp_path / "m" / "vae" / "manifest.json")
    assert manifest.quality is not None
    assert manifest.quality.seeds == (0, 1, 2, 3)
    for line in ("| near copies ", "| negative elbo "):
        assert line in printed
        assert line in document.read_text()
    words = flags({"epochs": 1, "seed": 7, "data_dir": mnist, "runs_dir": tmp_path / "r"})
    assert command_line("classifier", *words)[0] == 0
    record = json.loads(next((tmp_path / "r" / "classifiers").glob("*.json")).read_text())
    assert (record["dataset"], record["epochs"], record["seed"]) == ("MNIST", 1, 7)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("family", families())
def test_every_flag_reaches_the_run(command_line, pictures, tmp_path, family):
    places = {"data_dir": str(tmp_path / "d"), "runs_dir": str(tmp_path / "r"), "models_dir": str(tmp_path / "m")}
    defaults = DEFAULTS[family]
    others = {name: other(family, name) for name in defaults if name != "family"}
    values = others | SHARED | places | {"name": "tiny", "dataset": f"folder:{pictures}"}
    status, _, errors = command_line("train", family, *flags(values))
    assert status == 0, errors
    saved = json.loads((tmp_path / "r" / "tiny" / "config.json").read_text())
    assert saved == values | {"family": family}


def test_a_run_on_a_folder_of_images_makes_a_checkpoint_without_its_path(command_line, pictures, tmp_path):
    values = SHARED | {"name": "tiny", "dataset": f"folder:{pictures}"}
    values |= {"runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"}
    status, _, errors = command_line("train", "vae", *flags(values))
    assert status == 0, errors
    manifest = read_manifest(tmp_path / "m" / "tiny" / "manifest.json")
    assert manifest.dataset.name == "strokes"
    assert manifest.training.config["dataset"] == "folder:strokes"
    assert all(f"{loss}=" in errors for loss in manifest.training.losses)


def test_a_run_is_resumed_and_exported_again_from_the_command_line(command_line, mnist, tmp_path):
    common = flags(SHARED | {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    assert command_line("train", "vae", *common)[0] == 0
    status, _, errors = command_line("train", "vae", *common, "--resume")
    assert status == 0, errors
    assert "epoch" not in errors  # nothing is left to train
    again = command_line("export", "vae", *common, "--models-dir", tmp_path / "again")
    assert again[0] == 0, again[2]
    assert "epoch" not in again[2]
    for place in ("m", "again"):
        manifest = read_manifest(tmp_path / place / "vae" / "manifest.json")
        assert manifest.training.epochs == manifest.training.epoch == 1
        assert manifest.dataset.name == "MNIST"


def test_choices_come_from_a_file_and_flags_take_precedence(command_line, mnist, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f"""
        epochs = 1
        batch_size = 8
        beta = 0.25
        train_images = 16
        precision = "float32"
        device = "cpu"
        tensorboard = false
        data_dir = "{mnist}"
        runs_dir = "{tmp_path / "r"}"
        models_dir = "{tmp_path / "m"}"
    """)
    status, _, errors = command_line("train", "vae", "--config", file, "--seed", 5, "--beta", 2)
    assert status == 0, errors
    saved = json.loads((tmp_path / "r" / "vae" / "config.json").read_text())
    expected = {"epochs": 1, "batch_size": 8, "beta": 2, "train_images": 16, "seed": 5, "tensorboard": False}
    assert expected.items() <= saved.items()
    assert saved["learning_rate"] == DEFAULTS["vae"]["learning_rate"]
    # The resolved choices repeat the run.
    again = command_line("train", "vae", "--config", tmp_path / "r" / "vae" / "config.json", "--name", "again")
    assert again[0] == 0, again[2]
    saved_again = json.loads((tmp_path / "r" / "again" / "config.json").read_text())
    assert saved_again == saved | {"name": "again"}
    digests = [
        read_manifest(tmp_path / "m" / name / "manifest.json").archives["float32"].digest for name in ("vae", "again")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.toml", "beta = ", "TOML"),
        ("a.yaml", "beta: 1", ".toml"),
        ("a.toml", "family = 'gan'", "vae"),
        ("a.toml", "gamma = 1", ": gamma: "),
        ("a.toml", "epochs = true", ": epochs: "),
        ("a.json", '{"epochs": "1"}', ": epochs: "),
        ("a.json", '{"epochs": 1, "epochs": 2}', "repeated"),
        ("a.json", f'{{"epochs": {"9" * 5000}}}', "JSON"),
        ("a.toml", f"epochs = 0x{'f' * 5000}", "TOML"),
        ("a.json", f'{{"epochs": {"9" * 4000}}}', ": epochs: "),
        ("a.json", '{"runs_dir": "r\\u0000"}', ": runs_dir: "),
        ("a.toml", "data_dir = 'd\0'", "TOML"),
        ("a.json", '{"device": "\\ud800"}', ""),
        ("a.json", '{"a\\nb": 1}', "a b"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.json", "[]", "object"),
        ("a.toml", "a = 1979-05-27", ": a: "),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(command_line, tmp_path, name, content, named):
    file = tmp_path / name
    file.write_text(content)
    status, out, errors = command_line("train", "vae", "--config", file, "--runs-dir", tmp_path / "r")
    assert (status, out) == (2, "")
    assert errors.startswith(str(file))
    assert named in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("family", "choices", "name"),
    [
        ("vae", {}, "vae"),
        ("vae", {"dataset": "folder:/some/where/My Cats!"}, "vae-my-cats"),
        ("vae", {"dataset": "folder:..."}, "vae-folder"),
        ("vae", {"dataset": "fashion-mnist", "name": "vae"}, "vae"),
        ("lapgan", {}, "lapgan"),
        ("lapgan", {"size": 14}, "lapgan-14"),
        ("lapgan", {"size": "7", "dataset": "fashion-mnist"}, "lapgan-7-fashion-mnist"),
        ("srgan", {}, "srgan"),
        ("srgan", {"factor": "2", "dataset": "fashion-mnist"}, "srgan-2x-fashion-mnist"),
        ("srgan", {"factor": 2, "name": "mine"}, "mine"),
    ],
)
def test_the_default_name_of_a_run_contains_what_differs_from_the_default_form_and_data(family, choices, name):
    assert families()[family].config(**choices).name == name


def test_a_signal_ends_the_program_with_a_saved_state_and_one_line(mnist, tmp_path):
    root = Path(__file__).parents[2]
    places = {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"}
    values = flags(
        {"epochs": 100_000, "batch_size": 8, "device": "cpu", "save_steps": 1, "tensorboard": False} | places
    )
    script = (
        "import sys; from training import mnist, __main__ as program; "
        f"mnist.MNIST_SHA256 = {pinned.MNIST_SHA256!r}; sys.exit(program.main())"
    )
    command = [sys.executable, "-c", script, "train", "vae", *map(str, values)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as program:
        state = tmp_path / "r" / "vae" / "state.pt"
        while not state.exists():
            assert program.poll() is None, program.stderr.read() if program.stderr else ""
            Event().wait(0.05)
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=120)
    assert program.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1].startswith("stopped at step ")
    assert "Traceback" not in errors
    assert read_state(VaeConfig(runs_dir=tmp_path / "r"))["config"]["epochs"] == 100_000


def test_a_checkpoint_of_other_data_is_replaced_only_with_restart(command_line, mnist, pictures, tmp_path):
    words = flags({**SHARED, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    assert command_line("train", "vae", "--name", "vae-strokes", *words)[0] == 0
    manifest, state = tmp_path / "m" / "vae-strokes" / "manifest.json", tmp_path / "r" / "vae-strokes" / "state.pt"
    before = manifest.read_bytes(), state.read_bytes()
    other = ("--dataset", f"folder:{pictures}")
    status, _, errors = command_line("train", "vae", *words, *other)
    assert status == 1
    assert f"RunTaken: {manifest.parent}" in errors.splitlines()[-1]
    assert "epoch" not in errors
    assert (manifest.read_bytes(), state.read_bytes()) == before
    assert command_line("train", "vae", *words, *other, "--restart")[0] == 0
    assert read_manifest(manifest).dataset.name == "strokes"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "vae", "--epochs=0"], "--epochs"),
        (["train", "vae", "--beta=nan"], "--beta"),
        (["train", "vae", f"--epochs={2**53}"], "--epochs"),
        (["train", "vae", "--runs-dir=\udcff"], "--runs-dir"),
        (["train", "vae", "--config", "."], "."),
        (["train", "vae", "--name=../elsewhere"], "--name"),
        (["train", "vae", "--discriminator-steps", "2"], "--discriminator-steps"),
        (["train", "vae", "--config", "none.toml"], "none.toml"),
        (["export", "vae", "--resume"], "--resume"),
        (["evaluate", "vae", "--seeds", "2"], "--seeds"),
        (["train", "diffusion"], "diffusion"),
    ],
)
def test_a_bad_argument_is_named_on_the_last_line_and_nothing_is_written(
    command_line, tmp_path, monkeypatch, arguments, named
):
    monkeypatch.chdir(tmp_path)
    status, out, errors = command_line(*arguments)
    assert (status, out) == (2, "")
    assert named in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "vae", "--train-images", 5], "TooFewImages"),
        (["train", "vae", "--device", "banana"], "DeviceUnavailable: device 'banana'"),
        (["train", "gan", "--resume"], "CannotResume"),
        (["evaluate", "nobody"], "CheckpointError"),
        (["train", "vae", "--models-dir", "/dev/null"], "NotADirectoryError"),
    ],
)
def test_a_failure_that_the_user_can_mend_is_one_line_and_status_1(command_line, mnist, tmp_path, arguments, named):
    places = {"data_dir": mnist, "runs_dir": tmp_path / "r"}
    if arguments[0] != "evaluate":
        places |= SHARED if "/dev/null" in arguments else {"device": "cpu"}
    status, _, errors = command_line(arguments[0], arguments[1], *flags(places), *arguments[2:])
    assert status == 1
    assert errors.splitlines()[-1].startswith(named)
    assert "Traceback" not in errors


def test_an_unfinished_or_unexported_run_and_a_locked_directory_are_not_overwritten(
    command_line, mnist, tmp_path, monkeypatch
):
    words = flags({**SHARED, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    state = tmp_path / "r" / "vae" / "state.pt"

    def refused(*arguments: object) -> str:
        before = state.read_bytes() if state.exists() else b""
        status, _, errors = command_line("train", "vae", *words, *arguments)
        assert status == 1
        assert (state.read_bytes() if state.exists() else b"") == before
        last: str = errors.splitlines()[-1]
        assert last.startswith("RunTaken: ")
        return last

    def stop(*_: object) -> bytes:
        signal.raise_signal(signal.SIGTERM)
        return b""

    with run_lock(tmp_path / "r" / "vae"):
        assert str(os.getpid()) in refused()
        assert str(os.getpid()) in refused("--restart")
    with monkeypatch.context() as context:
        context.setattr(run, "csv_bytes", stop)
        assert command_line("train", "vae", *words, "--epochs", 2)[0] == 128 + signal.SIGTERM
    assert "--resume" in refused("--epochs", 2)
    with monkeypatch.context() as context:
        context.setattr(trainer, "export", lambda *_: os.listxattr(tmp_path / "none"))  # raises OSError
        assert command_line("train", "vae", *words, "--restart")[0] == 1
    assert "--resume" in refused()
    assert command_line("train", "vae", *words, "--resume")[0] == 0
    assert (tmp_path / "m" / "vae" / "manifest.json").is_file()
    assert command_line("train", "vae", *words)[0] == 0  # an exported run may be repeated

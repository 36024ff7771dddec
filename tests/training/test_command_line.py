"""`python -m training`: every flag, every failure a person can mend, and the tiny whole pipeline."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from PIL import Image

from app.checkpoints.manifest import Manifest
from training import __main__ as program
from training import data, report, trainer
from training.__main__ import main
from training.claim import claimed
from training.config import CONFIGS, VaeConfig
from training.data import Dataset

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command_line(monkeypatch, capsys) -> Run:
    """Runs `python -m training` with arguments; gives status, standard output and standard error."""

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
    """A folder of labelled images: PNG files of strokes, a folder a direction."""
    folder = tmp_path / "strokes"
    for number, (image, label) in enumerate(zip(dataset.train_images, dataset.train_labels, strict=True)):
        (folder / str(int(label))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / str(int(label)) / f"{number}.png")
    return folder


# A value other than the default for every flag that both families share, and for each family's own.
SHARED = {
    "epochs": 1,
    "batch_size": 8,
    "seed": 7,
    "ema_decay": 0.75,
    "device": "cpu",
    "train_images": 17,
    "save_steps": 1,
    "save_minutes": 0.5,
    "evaluate_every": 2,
    "tensorboard": False,
}
VARIATIONAL = {"precision": "bfloat16", "learning_rate": 0.003, "beta": 0.5, "binarised": True, "components": 2}
ADVERSARIAL = {
    "precision": "float32",
    "generator_learning_rate": 0.0003,
    "discriminator_learning_rate": 0.0004,
    "discriminator_steps": 2,
    "gradient_penalty": 0.5,
    "batch_norm": False,
}
OWN = {
    "vae": VARIATIONAL,
    "cvae": VARIATIONAL,
    "gan": ADVERSARIAL | {"discriminator": "deep"},
    "cgan": ADVERSARIAL,
}


DEFAULTS = {family: config().model_dump(mode="json") for family, config in CONFIGS.items()}  # type: ignore[call-arg]


def flags(values: dict[str, object]) -> list[object]:
    """Values as the flags that a person would type."""
    words: list[object] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", value]
    return words


def test_a_classifier_is_trained_by_one_command_and_what_it_reached_is_kept(command_line, mnist, tmp_path):
    words = flags({"epochs": 1, "seed": 7, "data_dir": mnist, "runs_dir": tmp_path / "r"})
    status, _, errors = command_line("classifier", *words)
    assert (status, errors) == (0, "")
    record = json.loads(next((tmp_path / "r" / "classifiers").glob("*.json")).read_text())
    assert (record["dataset"], record["epochs"], record["seed"]) == ("MNIST", 1, 7)
    assert 0 <= record["test_accuracy"] <= 1


def test_a_checkpoint_is_measured_by_one_command_which_prints_the_figures(command_line, mnist, tmp_path):
    places = {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"}
    assert command_line("train", "vae", *flags(SHARED | places))[0] == 0
    document = tmp_path / "README.md"
    document.write_text("<!-- quality: begin -->\n<!-- quality: end -->\n")
    status, printed, errors = command_line("evaluate", "vae", *flags({**places, "seeds": 4, "document": document}))
    assert (status, errors) == (0, "")
    manifest = Manifest.model_validate_json((tmp_path / "m" / "vae" / "manifest.json").read_bytes())
    assert manifest.quality is not None
    assert manifest.quality.seeds == (0, 1, 2, 3)
    for line in ("| near copies ", "| negative elbo "):
        assert line in printed
        assert line in document.read_text()


def test_a_checkpoint_that_is_not_there_and_too_few_seeds_are_refused_in_one_line(command_line, mnist, tmp_path):
    status, _, errors = command_line("evaluate", "nobody", "--data-dir", mnist, "--models-dir", tmp_path)
    assert status == 1
    assert errors == f"CannotEvaluate: {tmp_path}/nobody/manifest.json: No such file or directory\n"
    status, _, errors = command_line("evaluate", "vae", "--seeds", 2)
    assert status == 2
    assert errors == "--seeds: Input should be greater than or equal to 3\n"


def test_a_classifier_of_no_epochs_is_refused_in_one_line(command_line):
    status, _, errors = command_line("classifier", "--epochs", 0)
    assert status == 2
    assert errors == "--epochs: Input should be greater than or equal to 1\n"


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_flag_reaches_the_run_and_the_run_makes_a_checkpoint(command_line, pictures, tmp_path, family):
    places = {"data_dir": str(tmp_path / "d"), "runs_dir": str(tmp_path / "r"), "models_dir": str(tmp_path / "m")}
    values: dict[str, object] = {"name": "tiny", "dataset": f"folder:{pictures}"} | SHARED | OWN[family] | places
    defaults = DEFAULTS[family]
    assert values.keys() == defaults.keys() - {"family"}, "a new field wants a line here"
    assert not values.items() & defaults.items(), "a default would prove nothing"

    status, _, errors = command_line("train", family, *flags(values))
    assert status == 0, errors
    saved = json.loads((tmp_path / "r" / "tiny" / "config.json").read_text())
    assert saved == values | {"family": family}
    manifest = Manifest.model_validate_json((tmp_path / "m" / "tiny" / "manifest.json").read_bytes())
    assert manifest.family == family
    assert manifest.dataset.name == "strokes"
    assert manifest.training.config["dataset"] == "folder:strokes", "where it lay is nobody's business"
    assert f"epoch 1/1: 100%|{'█' * 10}| 2/2" in errors, "a progress bar with the losses"
    assert ("negative_elbo=" if family in {"vae", "cvae"} else "discriminator=") in errors


def test_a_run_is_resumed_and_exported_again_from_the_command_line(command_line, mnist, tmp_path):
    common = flags(SHARED | {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    assert command_line("train", "vae", *common)[0] == 0
    status, _, errors = command_line("train", "vae", *common, "--resume")
    assert status == 0, errors
    assert "epoch" not in errors, "nothing was left to train"
    again = command_line("export", "vae", *common, "--models-dir", tmp_path / "again")
    assert again[0] == 0, again[2]
    assert "epoch" not in again[2], "nothing is trained"
    for place in ("m", "again"):
        manifest = Manifest.model_validate_json((tmp_path / place / "vae" / "manifest.json").read_bytes())
        assert manifest.training.epochs == manifest.training.epoch == 1
        assert manifest.dataset.name == "MNIST"


@pytest.mark.parametrize("action", ["train", "export"])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_help_names_every_flag_and_its_default(command_line, action, family):
    status, text, _ = command_line(action, family, "--help")
    assert status == 0
    flat = " ".join(text.split())
    for name, default in DEFAULTS[family].items():
        if name != "family":
            assert f"--{name.replace('_', '-')}" in flat
            assert f"default {default}" in flat
    assert ("--resume" in flat) == (action == "train")


def test_the_module_runs_as_a_program():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "training", "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "{train,export,classifier,evaluate}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "0"),
        ("--save-steps", "0"),
        ("--save-minutes", "-1"),
        ("--evaluate-every", "-1"),
        ("--dataset", "cifar"),
        ("--dataset", "folder:"),
        ("--epochs", "many"),
        ("--epochs", "1.5"),
        ("--batch-size", "1"),
        ("--seed", "-1"),
        ("--seed", str(2**53)),
        ("--ema-decay", "1"),
        ("--train-images", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "inf"),
        ("--beta", "nan"),
        ("--beta", "-1"),
        ("--name", "../elsewhere"),
        ("--name", ""),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_flag(command_line, tmp_path, monkeypatch, flag, value):
    monkeypatch.chdir(tmp_path)
    status, out, errors = command_line("train", "vae", f"{flag}={value}")
    assert status == 2
    assert out == ""
    assert errors.startswith(f"{flag}: ")
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "vae", "--precision", "float16"], "--precision"),
        (["train", "vae", "--discriminator-steps", "2"], "--discriminator-steps"),
        (["export", "vae", "--resume"], "--resume"),
        (["classifier", "--config", "a.toml"], "--config"),
        (["train", "diffusion"], "diffusion"),
        (["train"], "family"),
        ([], "action"),
    ],
)
def test_an_unknown_argument_is_named_on_the_last_line(command_line, arguments, named):
    status, _, errors = command_line(*arguments)
    assert status == 2
    assert named in errors.splitlines()[-1]


@pytest.mark.parametrize("device", ["cuda:99", "mps", "xpu", "banana"])
def test_an_absent_device_is_one_line_and_status_1(command_line, tmp_path, device):
    if {"mps": torch.backends.mps.is_available(), "xpu": torch.xpu.is_available()}.get(device):
        pytest.skip(f"this machine has {device}")
    status, out, errors = command_line("train", "vae", "--device", device, "--runs-dir", tmp_path / "r")
    assert (status, out) == (1, "")
    assert errors.startswith(f"RuntimeError: device {device!r} cannot be used: ")
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_data_that_no_source_has_is_status_1_with_a_line_a_source(command_line, tmp_path, raw_files, no_network):
    places = ("--data-dir", tmp_path / "none", "--runs-dir", tmp_path / "r")
    status, _, errors = command_line("train", "vae", "--device", "cpu", *places)
    assert status == 1
    head, *sources = errors.splitlines()
    assert head == "DataUnavailable: MNIST is not available from any source:"
    assert len(sources) == 3


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_too_few_images_are_one_line_and_status_1(command_line, mnist, tmp_path, family):
    status, _, errors = command_line(
        "train", family, "--data-dir", mnist, "--train-images", 5, "--runs-dir", tmp_path / "r", "--device", "cpu"
    )
    size = DEFAULTS[family]["batch_size"]
    assert (status, errors) == (1, f"TooFewImages: 5 images do not fill one batch of {size}\n")


@pytest.mark.parametrize("arguments", [["train", "gan", "--resume"], ["export", "gan"]])
def test_a_run_that_is_not_there_is_one_line_and_status_1(command_line, mnist, tmp_path, arguments):
    places = ["--data-dir", mnist, "--runs-dir", tmp_path / "r", "--device", "cpu"]
    status, _, errors = command_line(*arguments, *places)
    assert status == 1
    assert errors == f"CannotResume: {tmp_path / 'r' / 'gan' / 'state.pt'} does not exist: nothing to resume\n"


def test_a_directory_that_cannot_be_written_is_one_line_and_status_1(command_line, mnist, tmp_path):
    (tmp_path / "file").write_text("in the way")
    places = {"data_dir": mnist, "runs_dir": tmp_path / "file", "models_dir": tmp_path / "m"}
    status, _, errors = command_line("train", "vae", *flags(SHARED | places))
    assert status == 1
    assert errors.startswith("NotADirectoryError: ")
    assert len(errors.splitlines()) == 1


# --- choices from a file


def test_a_file_gives_choices_and_flags_win(command_line, mnist, tmp_path):
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
    # What a run resolved makes the same run again.
    again = command_line("train", "vae", "--config", tmp_path / "r" / "vae" / "config.json", "--name", "again")
    assert again[0] == 0, again[2]
    saved_again = json.loads((tmp_path / "r" / "again" / "config.json").read_text())
    assert saved_again == saved | {"name": "again"}
    digests = [
        Manifest.model_validate_json((tmp_path / "m" / name / "manifest.json").read_bytes()).archives["float32"].digest
        for name in ("vae", "again")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", "beta = ", "is not TOML"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "does not hold an object"),
        ("a.yaml", "beta: 1", "is neither .toml nor .json"),
        ("a.toml", "family = 'gan'", "is of another family than vae"),
        ("a.toml", "beta = -1", ": beta: Input should be greater than or equal to 0"),
        ("a.toml", "gamma = 1", ": gamma: Extra inputs are not permitted"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(command_line, tmp_path, name, content, words):
    file = tmp_path / name
    file.write_text(content)
    status, out, errors = command_line("train", "vae", "--config", file, "--runs-dir", tmp_path / "r")
    assert (status, out) == (2, "")
    assert errors.startswith(str(file))
    assert words in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_file_that_is_not_there_is_one_line(command_line, tmp_path):
    status, _, errors = command_line("train", "vae", "--config", tmp_path / "none.toml")
    assert (status, errors) == (2, f"{tmp_path / 'none.toml'} cannot be read: No such file or directory\n")


# --- names, stops and interruptions


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "vae"),
        ({"dataset": "mnist"}, "vae"),
        ({"dataset": "fashion-mnist"}, "vae-fashion-mnist"),
        ({"dataset": "folder:/some/where/My Cats!"}, "vae-my-cats"),
        ({"dataset": "folder:cats/"}, "vae-cats"),
        ({"dataset": "folder:..."}, "vae-folder"),
        ({"dataset": "fashion-mnist", "name": "vae"}, "vae"),
    ],
)
def test_a_run_on_other_data_has_a_name_that_says_so_and_leaves_the_digits_alone(arguments, name):
    assert VaeConfig(**arguments).name == name


def test_a_signal_ends_the_program_with_its_number_one_line_and_a_state(mnist, tmp_path):
    root = Path(__file__).parents[2]
    places = {"data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"}
    values = flags(
        {"epochs": 100_000, "batch_size": 8, "device": "cpu", "save_steps": 1, "tensorboard": False} | places
    )
    script = (
        "import sys; from training import data, __main__ as program; "
        f"data.MNIST_SHA256 = {data.MNIST_SHA256!r}; sys.exit(program.main())"
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
    assert torch.load(state, weights_only=True)["config"]["epochs"] == 100_000


def test_an_interruption_outside_of_training_is_one_line(command_line, tmp_path, monkeypatch):
    def interrupted(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "train", interrupted)
    assert command_line("train", "vae", "--runs-dir", tmp_path) == (130, "", "interrupted\n")


def test_a_run_that_was_stopped_is_not_overwritten_unless_that_is_said(command_line, mnist, tmp_path, monkeypatch):
    words = flags({**SHARED, "epochs": 2, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    write_progress = report.write_progress

    def stop_and_write(*arguments: Any) -> Path:
        signal.raise_signal(signal.SIGTERM)
        return write_progress(*arguments)

    with monkeypatch.context() as context:
        context.setattr(report, "write_progress", stop_and_write)
        assert command_line("train", "vae", *words)[0] == 128 + signal.SIGTERM
    state = (tmp_path / "r" / "vae" / "state.pt").read_bytes()
    status, _, errors = command_line("train", "vae", *words)
    assert status == 1
    assert "holds a run that was stopped in epoch 2 of 2: --resume goes on from there, --restart begins" in errors
    assert errors.count("\n") == 1
    assert (tmp_path / "r" / "vae" / "state.pt").read_bytes() == state
    assert command_line("train", "vae", *words, "--restart")[0] == 0
    assert command_line("train", "vae", *words)[0] == 0, "a finished run may be done again"


def test_a_run_that_was_trained_and_not_exported_is_not_overwritten(command_line, mnist, tmp_path, monkeypatch):
    words = flags({**SHARED, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as context:
        context.setattr(trainer, "export", full)
        assert command_line("train", "vae", *words)[0] == 1
    state = (tmp_path / "r" / "vae" / "state.pt").read_bytes()
    status, _, errors = command_line("train", "vae", *words)
    assert status == 1
    assert "holds a run that was trained and not exported: --resume exports it, --restart begins anew" in errors
    assert errors.count("\n") == 1
    assert (tmp_path / "r" / "vae" / "state.pt").read_bytes() == state
    assert command_line("train", "vae", *words, "--resume")[0] == 0
    assert (tmp_path / "m" / "vae" / "manifest.json").is_file()
    assert command_line("train", "vae", *words)[0] == 0, "it has a checkpoint now"


def test_a_checkpoint_of_other_data_is_not_replaced_unless_that_is_said(command_line, mnist, pictures, tmp_path):
    words = flags({**SHARED, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    assert command_line("train", "vae", "--name", "vae-strokes", *words)[0] == 0
    manifest, state = tmp_path / "m" / "vae-strokes" / "manifest.json", tmp_path / "r" / "vae-strokes" / "state.pt"
    before = manifest.read_bytes(), state.read_bytes()
    other = ("--dataset", f"folder:{pictures}")
    status, _, errors = command_line("train", "vae", *words, *other)
    assert status == 1
    assert errors.splitlines()[-1] == (
        f"RunTaken: {manifest.parent} holds a checkpoint of other data, MNIST: --name gives this run and its "
        "checkpoint a place of their own, --restart replaces that one"
    )
    assert "epoch" not in errors, "it is refused before anything is trained"
    assert (manifest.read_bytes(), state.read_bytes()) == before
    assert command_line("train", "vae", *words, *other, "--restart")[0] == 0
    assert Manifest.model_validate_json(manifest.read_bytes()).dataset.name == "strokes"


def test_a_directory_that_another_training_uses_is_refused_in_one_line(command_line, mnist, tmp_path):
    words = flags({**SHARED, "data_dir": mnist, "runs_dir": tmp_path / "r", "models_dir": tmp_path / "m"})
    with claimed(tmp_path / "r" / "vae"):
        status, _, errors = command_line("train", "vae", *words)
    assert status == 1
    assert errors == f"RunTaken: {tmp_path}/r/vae is in use by process {os.getpid()}\n"
    assert command_line("train", "vae", *words)[0] == 0
    with claimed(tmp_path / "r" / "vae"):
        status, _, errors = command_line("train", "vae", *words, "--resume")
    assert status == 1
    assert errors.startswith("RunTaken: ")

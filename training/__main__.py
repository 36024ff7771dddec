"""`python -m training ...`: from arguments to a config and its action."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from app.checkpoints.store import CheckpointError
from training.config import BadConfigFile, Choices, TrainConfig, first_mistake, read_config_file
from training.data import DataUnavailable, TooFewImages
from training.device import DeviceUnavailable
from training.distribution import ProcessLost
from training.divergence import Diverged
from training.evaluation.evaluate import (
    CannotEvaluate,
    DocumentConfig,
    EvaluateConfig,
    evaluate_held_out,
    evaluate_named,
    write_documents,
)
from training.evaluation.feature_extractor import ClassifierConfig, ClassifierDamaged, make_classifier
from training.families import families
from training.generation import NotANumber
from training.golden import ExportMismatch
from training.quality_report import figures_table, quality_text
from training.run_lock import RunTaken, check_finished
from training.sources import load_dataset
from training.state import CannotResume
from training.stopping import Stopped
from training.trainer import export_run, train

COMMANDS: dict[str, type[Choices]] = {
    "classifier": ClassifierConfig,
    "document": DocumentConfig,
    "evaluate": EvaluateConfig,
}
# Failures that the user can correct, each one line on standard error.
USER_ERRORS = (
    CannotEvaluate,
    CannotResume,
    CheckpointError,
    ClassifierDamaged,
    DataUnavailable,
    DeviceUnavailable,
    Diverged,
    ExportMismatch,
    NotANumber,
    ProcessLost,
    RunTaken,
    TooFewImages,
    OSError,
    torch.OutOfMemoryError,
)


def parser() -> argparse.ArgumentParser:
    """One subcommand per action, one flag per field of the config."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train and export checkpoints.")
    actions = root.add_subparsers(dest="action", required=True)
    for action, purpose in {
        "train": "train a family and export its checkpoint",
        "export": "export the last saved state of a run",
    }.items():
        commands = actions.add_parser(action, help=purpose).add_subparsers(dest="family", required=True)
        for name, family in families().items():
            command = commands.add_parser(name, help=family.config.__doc__)
            choices = "choices from a TOML or JSON file; flags take precedence"
            command.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=choices)
            add_flags(command, family.config, resume=action == "train")
    classifier = actions.add_parser("classifier", help="train the classifier that the quality figures need")
    add_flags(classifier, ClassifierConfig)
    evaluate = actions.add_parser("evaluate", help="measure checkpoints and write their manifests and cards")
    evaluate.add_argument("names", nargs="+", metavar="NAME", help="a directory in the models directory")
    add_flags(evaluate, EvaluateConfig)
    document = actions.add_parser("document", help="write cards and the tables of quality again from the manifests")
    add_flags(document, DocumentConfig)
    return root


def add_flags(command: argparse.ArgumentParser, config: type[Choices], *, resume: bool = False) -> None:
    """Add the fields of a config as flags. Absent flags keep the default of the config."""
    for name, field in config.model_fields.items():
        if name in {"family", "names"}:
            continue
        default = None if field.default is PydanticUndefined else field.default
        text = "; ".join(filter(None, (field.description, "" if default is None else f"default {default}")))
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)] or None
        command.add_argument(flag, default=argparse.SUPPRESS, choices=choices, help=text)
    if resume:
        either = command.add_mutually_exclusive_group()
        either.add_argument("--resume", action="store_true", help="continue from the last saved state")
        overwrite = "overwrite an unfinished run, or a checkpoint of other data"
        either.add_argument("--restart", action="store_true", help=overwrite)


def main() -> int:
    """Run one command and return the exit status."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    arguments = vars(parser().parse_args())
    try:
        return run(arguments)
    except Stopped as stopped:
        print_error(str(stopped))
        return 128 + stopped.signal_number
    except KeyboardInterrupt:
        print_error("interrupted")
        return 128 + signal.SIGINT
    except BadConfigFile as error:
        print_error(str(error))
        return 2
    except USER_ERRORS as error:
        print_error(f"{type(error).__name__}: {error}")
        return 1


def run(arguments: dict[str, Any]) -> int:
    """Run the action with the other arguments as its config and return the exit status."""
    action, family = arguments.pop("action"), arguments.pop("family", None)
    resume, restart = arguments.pop("resume", False), arguments.pop("restart", False)
    file = arguments.pop("config", None)
    kind = COMMANDS[action] if family is None else families()[family].config
    given = read_config_file(Path(file), kind) if file is not None and issubclass(kind, TrainConfig) else {}
    try:
        config = kind(**(given | arguments))
    except ValidationError as error:
        *choice, cause = first_mistake(error)
        print_error(": ".join([*(f"--{part.replace('_', '-')}" for part in choice), cause]))
        return 2
    if isinstance(config, ClassifierConfig):
        make_classifier(config, load_dataset(config.dataset, config.data_dir))
    elif isinstance(config, EvaluateConfig) and config.classifier is not None:
        for name, figures in evaluate_held_out(config):
            print(f"{name}\n\n{figures_table(figures)}\n")
    elif isinstance(config, EvaluateConfig):
        for manifest in evaluate_named(config):
            print(f"{manifest.name}\n\n{quality_text(manifest)}")
    elif isinstance(config, DocumentConfig):
        write_documents(config)
    elif isinstance(config, TrainConfig):
        if action == "train":
            if not resume and not restart:
                check_finished(config)
            train(config, resume=resume, restart=restart)
        else:
            export_run(config)
    return 0


def print_error(line: str) -> None:
    """Write a line to standard error, with the rank of the process unless it is the first.

    Errors of PyTorch have many lines, and names of files may have any character.
    """
    rank = os.environ.get("RANK", "0")
    line = " ".join((line if rank == "0" else f"process {rank}: {line}").split())
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

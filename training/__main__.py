"""`python -m training ...`: arguments to config, no logic."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from training.agreement import ExportMismatch
from training.card import quality_text
from training.claim import RunTaken, check_finished
from training.config import CONFIGS, TrainConfig
from training.config_file import BadConfigFile, read_config_file
from training.data import DataUnavailable, TooFewImages
from training.datasets import load_dataset
from training.divergence import Diverged
from training.evaluation.checkpoint import CannotEvaluate, EvaluateConfig, evaluate_named
from training.evaluation.extractor import ClassifierConfig, ClassifierDamaged, make_classifier
from training.sampling import NotANumber
from training.stopping import Stopped
from training.torchscript import ArchiveDamaged
from training.trainer import CannotResume, export_run, train

COMMANDS: dict[str, type[BaseModel]] = {"classifier": ClassifierConfig, "evaluate": EvaluateConfig}
MENDABLE = (
    ArchiveDamaged,
    CannotEvaluate,
    CannotResume,
    ClassifierDamaged,
    DataUnavailable,
    Diverged,
    ExportMismatch,
    NotANumber,
    RunTaken,
    TooFewImages,
    OSError,
    RuntimeError,
)


def parser() -> argparse.ArgumentParser:
    """One subcommand an action, one flag a field of the family's config."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train and export checkpoints.")
    actions = root.add_subparsers(dest="action", required=True)
    for action, purpose in {
        "train": "train a family and export its checkpoint",
        "export": "export the last saved state of a run",
    }.items():
        families = actions.add_parser(action, help=purpose).add_subparsers(dest="family", required=True)
        for family, config in CONFIGS.items():
            command = families.add_parser(family, help=config.__doc__)
            choices = "choices from a TOML or JSON file; flags win"
            command.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=choices)
            add_flags(command, config, resume=action == "train")
    classifier = actions.add_parser("classifier", help="train the classifier that quality is measured with")
    add_flags(classifier, ClassifierConfig)
    evaluate = actions.add_parser("evaluate", help="measure checkpoints; write their manifests and cards")
    evaluate.add_argument("names", nargs="+", metavar="NAME", help="of a directory in the models' directory")
    add_flags(evaluate, EvaluateConfig)
    return root


def add_flags(command: argparse.ArgumentParser, config: type[BaseModel], *, resume: bool = False) -> None:
    """The config's fields as flags; what is not given keeps the config's default."""
    for name, field in config.model_fields.items():
        if name in {"family", "names"}:
            continue
        default = None if field.default is PydanticUndefined else field.default
        text = "; ".join(part for part in (field.description, f"default {default}") if part)
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)] or None
        command.add_argument(flag, default=argparse.SUPPRESS, choices=choices, help=text)
    if resume:
        either = command.add_mutually_exclusive_group()
        either.add_argument("--resume", action="store_true", help="go on from the last saved state")
        either.add_argument(
            "--restart", action="store_true", help="begin anew, over a stopped run or other data's checkpoint"
        )


def main() -> int:
    """Run one command; the exit status. Failures a person can mend are one line on standard error."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    arguments = vars(parser().parse_args())
    try:
        return run(arguments)
    except Stopped as stopped:
        complain(str(stopped))
        return 128 + stopped.number
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + signal.SIGINT
    except BadConfigFile as error:
        complain(str(error))
        return 2
    except MENDABLE as error:
        # PyTorch's own tell a story, a line a frame.
        text = " ".join(str(error).split()) if isinstance(error, RuntimeError) else str(error)
        complain(f"{type(error).__name__}: {text}")
        return 1


def run(arguments: dict[str, Any]) -> int:
    """The action with what is left of the arguments as its config; the exit status."""
    action, family = arguments.pop("action"), arguments.pop("family", None)
    resume, restart = arguments.pop("resume", False), arguments.pop("restart", False)
    file = arguments.pop("config", None)
    given = read_config_file(Path(file)) if file else {}
    if given.pop("family", family) != family:
        raise BadConfigFile(f"{file} is of another family than {family}")
    try:
        config = (COMMANDS[action] if family is None else CONFIGS[family])(**(given | arguments))
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0])
            is_flag = name in arguments or name not in given
            complain(f"{'--' + name.replace('_', '-') if is_flag else f'{file}: {name}'}: {item['msg']}")
        return 2
    if isinstance(config, ClassifierConfig):
        make_classifier(config, load_dataset(config.dataset, config.data_dir))
    elif isinstance(config, EvaluateConfig):
        for manifest in evaluate_named(config):
            print(f"{manifest.name}\n\n{quality_text(manifest)}")
    elif isinstance(config, TrainConfig):
        if action == "train":
            if not resume and not restart:
                check_finished(config)
            train(config, resume=resume, restart=restart)
        else:
            export_run(config)
    return 0


def complain(line: str) -> None:
    """Say it on standard error; of several processes, which one says it."""
    rank = os.environ.get("RANK", "0")
    print(line if rank == "0" else f"process {rank}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

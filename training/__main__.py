"""`python -m training ...`: arguments to config, no logic."""

import argparse
import logging
import sys
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from training.card import quality_text
from training.config import CONFIGS, TrainConfig
from training.data import DataUnavailable, TooFewImages, load_mnist
from training.evaluation.checkpoint import CannotEvaluate, EvaluateConfig, evaluate_named
from training.evaluation.extractor import ClassifierConfig, ClassifierDamaged, make_classifier
from training.export import ArchiveDamaged, ExportMismatch
from training.sampling import NotANumber
from training.trainer import CannotResume, export_run, train

COMMANDS: dict[str, type[BaseModel]] = {"classifier": ClassifierConfig, "evaluate": EvaluateConfig}
MENDABLE = (
    ArchiveDamaged,
    CannotEvaluate,
    CannotResume,
    ClassifierDamaged,
    DataUnavailable,
    ExportMismatch,
    NotANumber,
    TooFewImages,
)


def parser() -> argparse.ArgumentParser:
    """One subcommand an action, one flag a field of the family's config."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train and export checkpoints.")
    actions = root.add_subparsers(dest="action", required=True)
    for action, text in {
        "train": "train a family and export its checkpoint",
        "export": "export the last saved state of a run",
    }.items():
        families = actions.add_parser(action, help=text).add_subparsers(dest="family", required=True)
        for family, config in CONFIGS.items():
            add_flags(families.add_parser(family, help=config.__doc__), config, resume=action == "train")
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
        command.add_argument("--resume", action="store_true", help="go on after the last finished epoch")


def main() -> int:
    """Run one command; the exit status. Failures a person can mend are one line on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = vars(parser().parse_args())
    action, family = arguments.pop("action"), arguments.pop("family", None)
    resume = arguments.pop("resume", False)
    try:
        config = (COMMANDS[action] if family is None else CONFIGS[family])(**arguments)
    except ValidationError as error:
        for item in error.errors():
            print(f"--{str(item['loc'][0]).replace('_', '-')}: {item['msg']}", file=sys.stderr)
        return 2
    try:
        if isinstance(config, ClassifierConfig):
            make_classifier(config, load_mnist(config.data_dir))
        elif isinstance(config, EvaluateConfig):
            for manifest in evaluate_named(config):
                print(f"{manifest.name}\n\n{quality_text(manifest)}")
        elif isinstance(config, TrainConfig):
            if action == "train":
                train(config, resume=resume)
            else:
                export_run(config)
    except (*MENDABLE, OSError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

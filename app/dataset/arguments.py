"""The arguments of `python -m app dataset`. Imports only the standard library: every start imports this module."""

import argparse
from collections.abc import Callable
from pathlib import Path

FORMATS = ("parquet", "webdataset", "idx", "npz", "folder")
# IDX files have 32-bit sizes.
MAX_IMAGES = 2**31 - 1
MAX_SEED = 2**53 - 1  # as in a request
MAX_PROCESSES = 256

DESCRIPTION = """Write images 0 to COUNT - 1 of a seed into a folder, with their labels, a manifest and a data set card.
The same arguments write the same bytes. Run the same command again to resume a run that was stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--model", required=True, help="checkpoint in DIGITS_MODELS_DIR that generates the images")
    parser.add_argument("--count", required=True, type=_integer(1, MAX_IMAGES), help="number of images")
    parser.add_argument("--format", required=True, choices=FORMATS, help="form of the files, see docs/datasets.md")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--seed", default=0, type=_integer(0, MAX_SEED), help="default 0")
    parser.add_argument(
        "--label", help="balanced (all classes in turn), a class, or classes in turn as in 3,7; default: from the seed"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--processes",
        type=_integer(1, MAX_PROCESSES),
        help="number of local processes; default DIGITS_PROCESSES, else one per core on a CPU and one on a GPU",
    )
    where.add_argument("--ray", metavar="ADDRESS", help="compute on this Ray cluster, as in auto or 10.0.0.1:6379")


def _integer(least: int, most: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be an integer from {least} to {most}")
        return value

    return integer

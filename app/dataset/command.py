"""The run of `python -m app dataset`."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NoReturn, Protocol

from app.dataset.directory import DatasetDirectory
from app.dataset.local_processes import LocalProcesses, ThisProcess
from app.dataset.plan import RESUME_HINT, DatasetError, Plan, Request
from app.dataset.shards import Setup, Shard, check
from app.inference.machine import default_processes
from app.settings import BadSettings, Settings, read_settings

# Shells report the exit status of a process that a signal ended as 128 plus the number of the signal.
SIGNALLED = 128


class Interrupted(BaseException):
    """A signal asks the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Executor(Protocol):
    """Where a data set is computed."""

    def plan(self, request: Request) -> Plan:
        """The plan of a data set that this executor computes. Raises DatasetError."""

    def shards(self, plan: Plan, numbers: Sequence[int]) -> Iterator[Shard]:
        """The shards of these numbers, in any order. Raises DatasetError."""


def run(arguments: argparse.Namespace) -> int:
    """Write a data set, or the rest of one.

    Returns the exit status: 0, 1 for an error, 2 for bad settings, or 128 + the number of a signal.
    """
    try:
        with _interruptible():
            print(_write(arguments, read_settings()))
            return 0
    except BadSettings as error:
        print(error, file=sys.stderr)
        return 2
    except DatasetError as error:
        print(f"digits dataset: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"digits dataset: stopped; {RESUME_HINT}", file=sys.stderr)
        return SIGNALLED + error.number


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise Interrupted at the first SIGINT or SIGTERM."""

    def interrupt(number: int, _: object) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # cleaning up is short
        raise Interrupted(number)

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _write(arguments: argparse.Namespace, settings: Settings) -> str:
    """Write a data set and return a line about it. Raises DatasetError."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 -- of an extra
    except ImportError:
        raise DatasetError("needs the package tqdm of the extra `dataset`: pip install '.[dataset]'") from None

    if arguments.out.resolve().is_relative_to(settings.models_dir.resolve()):
        raise DatasetError(f"{arguments.out}: is in {settings.models_dir}, which holds checkpoints only")
    request = Request(
        model=arguments.model,
        count=arguments.count,
        seed=arguments.seed,
        label=arguments.label,
        format=arguments.format,
    )
    setup = Setup.of(settings)
    check(setup, request)
    with _executor(arguments, settings, setup) as executor:
        plan = executor.plan(request)
        with DatasetDirectory.opened(arguments.out, plan) as directory:
            missing = directory.missing
            done = sum(record.images for record in directory.records.values())
            with tqdm(total=request.count, initial=done, unit=" images", unit_scale=True, disable=None) as bar:
                for shard in executor.shards(plan, missing):
                    directory.add(shard)
                    bar.update(shard.record.images)
            directory.finish()
    made = f"wrote {len(missing)} of" if missing else "verified all"
    return f"{arguments.out}: {request.count:,} images; {made} {plan.shards} shards"


def _executor(arguments: argparse.Namespace, settings: Settings, setup: Setup) -> AbstractContextManager[Executor]:
    if arguments.ray is not None:
        from app.dataset.ray_cluster import RayCluster  # noqa: PLC0415

        return RayCluster.connected(setup, arguments.ray)
    processes = arguments.processes or settings.processes or default_processes(settings.device)
    return LocalProcesses.started(setup, processes) if processes > 1 else nullcontext(ThisProcess(setup))

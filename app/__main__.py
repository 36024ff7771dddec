"""`python -m app`, or `digits serve`: run the service, configured by environment variables."""

import argparse
import logging
import signal
import sys
import warnings
from typing import NoReturn

from pydantic import ValidationError

from app import logs
from app.checkpoints.store import CheckpointError, check_files
from app.server.descriptors import TooFewDescriptors
from app.server.environment import CannotListen, leave, listen, prepare
from app.settings import SETTINGS_FILE, Settings

log = logging.getLogger("app")


def main() -> int:
    """Serve and return the exit status: 0, 1 for a failure, 2 for bad settings or arguments."""
    parser = argparse.ArgumentParser(prog="digits", description="Serve the checkpoints in DIGITS_MODELS_DIR.")
    parser.add_argument("command", nargs="?", choices=["serve"], default="serve")
    parser.parse_args()
    try:
        settings = Settings(_env_file=SETTINGS_FILE)
    except ValidationError as error:
        for item in error.errors(include_input=False):
            name = "".join(f"DIGITS_{str(part).upper().removeprefix('DIGITS_')}: " for part in item["loc"])
            print(f"{name}{item['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    except (UnicodeDecodeError, OSError) as error:
        print(f"{SETTINGS_FILE}: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    return serve(settings)


def serve(settings: Settings) -> int:
    """Serve until a signal ends the process; the exit status."""
    # Warnings of Pillow about uploads would fill the log.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(0))  # until the server installs its own handlers
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        check_files(settings.models_dir)
        listener = listen(settings)
        processes = prepare(settings)
    except (CheckpointError, CannotListen, TooFewDescriptors) as error:
        log.error("cannot start: %s", error)
        return 1
    if processes > 1:
        from app.server import supervisor  # noqa: PLC0415 -- after `prepare`

        return supervisor.serve(settings, processes, listener)
    from app.server import process  # noqa: PLC0415

    return process.serve(settings, listener)


def run() -> NoReturn:
    """The console command."""
    leave(main())


if __name__ == "__main__":
    run()

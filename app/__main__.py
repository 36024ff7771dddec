"""`python -m app`, or `digits serve`: run the service, configured by environment variables."""

import argparse
from typing import NoReturn

from app.server.environment import begin, leave, start


def main() -> int:
    """Serve until a signal ends the process.

    Returns the exit status, 0 or 1 for a failure. Raises SystemExit as `start`, and for bad arguments.
    """
    parser = argparse.ArgumentParser(prog="digits", description="Serve the checkpoints in DIGITS_MODELS_DIR.")
    parser.add_argument("command", nargs="?", choices=["serve"], default="serve")
    parser.parse_args()
    settings, listener, processes = start()
    if processes > 1:
        from app.server import supervisor  # noqa: PLC0415 -- after `start`

        return supervisor.serve(settings, processes, listener)
    from app.server import process  # noqa: PLC0415

    return process.serve(settings, listener)


def run() -> NoReturn:
    """The console command."""
    begin()
    leave(main())


if __name__ == "__main__":
    run()

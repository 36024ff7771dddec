"""`python -m app`, or `digits`: run the service, configured by environment variables, or write a data set."""

import argparse
from typing import NoReturn

from app.dataset.arguments import DESCRIPTION, add_arguments
from app.server.environment import exit_process, initialize_process, prepare_service


def main() -> int:
    """Serve until a signal ends the process, or write a data set.

    Returns the exit status: 0, 1 for a failure, or that of `app.dataset.command`. Raises SystemExit like
    `prepare_service`, and for bad arguments.
    """
    parser = argparse.ArgumentParser(prog="digits", description="Serve the checkpoints in DIGITS_MODELS_DIR.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve over HTTP, as without a command")
    add_arguments(commands.add_parser("dataset", help="write images and labels to files", description=DESCRIPTION))
    arguments = parser.parse_args()
    if arguments.command == "dataset":
        from app.dataset import command  # noqa: PLC0415 -- imports PyTorch

        return command.run(arguments)
    settings, listener, processes = prepare_service()
    if processes > 1:
        from app.server import supervisor  # noqa: PLC0415 -- after `prepare_service`

        return supervisor.serve(settings, processes, listener)
    from app.server import process  # noqa: PLC0415

    return process.serve(settings, listener)


def run() -> NoReturn:
    """The console command."""
    initialize_process()
    exit_process(main())


if __name__ == "__main__":
    run()

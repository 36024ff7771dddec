"""`python -m app`: run the service, configured by environment variables."""

import argparse
import gc
import logging
import signal
import sys
import warnings
from pathlib import Path

from pydantic import ValidationError

from app import logs
from app.server.descriptors import TooFewDescriptors, raise_limit
from app.server.process import Server, leave
from app.server.protocol import UnsupportedUvicorn
from app.settings import Settings

log = logging.getLogger("app")

# In the working directory; the environment overrides it.
SETTINGS_FILE = Path("digits.env")


def freeze() -> None:
    """Exclude imported objects from garbage collection.

    PyTorch alone has 200,000 of them; a full collection stopped the event loop for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def main() -> int:
    """Serve and return the exit status: 0, 1 for a failure, 2 for bad settings or arguments."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve the checkpoints in DIGITS_MODELS_DIR.")
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
        raise_limit(settings.max_connections)
        server = Server(settings)
    except (TooFewDescriptors, UnsupportedUvicorn) as error:
        log.error("cannot start: %s", error)
        return 1
    freeze()
    try:
        server.run()
    except SystemExit as error:
        if server.started or not error.code:
            raise
    if not server.started:
        where = (settings.host, settings.port)
        log.error("cannot start: nothing can listen at DIGITS_HOST=%s DIGITS_PORT=%d", *where)
    return 0 if server.started and not server.failed else 1


if __name__ == "__main__":
    leave(main())

"""`python -m app`: settings to a server with its limits, timeouts and drain, or to a calibration."""

import argparse
import gc
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from pydantic import ValidationError

from app import calibrate, logs
from app.checkpoints.store import CheckpointError
from app.inference.machine import DeviceUnavailable
from app.server.descriptors import TooFewDescriptors, raise_limit
from app.server.process import Server, leave
from app.server.protocol import UnsupportedUvicorn
from app.settings import Settings

log = logging.getLogger("app")

# A worker that comes back from a forward pass asks for the interpreter, and on a busy event loop gets it only when
# it has waited this long. Python's own 5 ms are as long as a whole batch.
SWITCH_INTERVAL_S = 5e-5
# In the working directory; what `calibrate` writes and every start reads.
SETTINGS_FILE = Path("digits.env")


def freeze() -> None:
    """Keep what was imported out of every later garbage collection.

    PyTorch alone brings 200,000 objects; going through them stopped the event loop for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def main() -> int:
    """Serve until told to end, or calibrate; 0, 1 where something cannot be had, 2 for bad settings or arguments."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve the checkpoints in DIGITS_MODELS_DIR.")
    actions = parser.add_subparsers(dest="action", metavar="calibrate")
    actions.add_parser("calibrate", help=f"measure how this machine computes best and write it to {SETTINGS_FILE}")
    action = parser.parse_args().action
    try:
        settings = Settings(_env_file=SETTINGS_FILE)
    except ValidationError as error:
        for item in error.errors(include_input=False):
            name = "".join(f"DIGITS_{str(part).upper().removeprefix('DIGITS_')}: " for part in item["loc"])
            print(f"{name}{item['msg']}", file=sys.stderr)
        return 2
    except (UnicodeDecodeError, OSError) as error:
        print(f"{SETTINGS_FILE}: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    return run_calibration(settings) if action == "calibrate" else serve(settings)


def run_calibration(settings: Settings) -> int:
    """Measure, show, write; the exit status."""
    measurements = []
    try:
        if not os.access(SETTINGS_FILE.absolute().parent, os.W_OK):
            raise PermissionError(f"{SETTINGS_FILE} cannot be written here")
        for one in calibrate.measure(settings):
            measurements.append(one)
            print(".", end="", flush=True)
        if not measurements:
            raise CheckpointError(settings.models_dir, "holds no model that generates")
        print(f"\nimages a second of each model, by rows of a batch:\n{calibrate.table(measurements)}")
        workers, rows = calibrate.best(measurements)
        calibrate.write(SETTINGS_FILE, workers, rows)
    except (CheckpointError, DeviceUnavailable, OSError) as error:
        log.error("cannot calibrate: %s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"wrote DIGITS_WORKERS={workers} and DIGITS_MAX_BATCH_ROWS={rows} to {SETTINGS_FILE}")
    return 0


def serve(settings: Settings) -> int:
    """Serve until told to end; the exit status."""
    # Pillow warns of oddities in uploads, which are the caller's business and would fill the log.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(0))  # until the server has its own: ending when told is no error
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        raise_limit(settings.max_connections)
        server = Server(settings)
    except (TooFewDescriptors, UnsupportedUvicorn) as error:
        log.error("cannot start: %s", error)
        return 1
    freeze()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
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

"""`python -m app`: settings to a server with its limits, timeouts and drain, or to a calibration."""

import argparse
import gc
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType

import uvicorn
from pydantic import ValidationError

from app import calibrate, logs
from app.checkpoints.store import CheckpointError
from app.descriptors import TooFewDescriptors, provide
from app.inference.machine import DeviceUnavailable
from app.main import create_app
from app.protocol import Limits, within
from app.readiness import Readiness
from app.settings import Settings

log = logging.getLogger("app")

KEEP_ALIVE_S = 30
# A worker that comes back from a forward pass asks for the interpreter, and on a busy event loop gets it only when
# it has waited this long. Python's own 5 ms are as long as a whole batch.
SWITCH_INTERVAL_S = 5e-5
# In the working directory; what `calibrate` writes and every start reads.
SETTINGS_FILE = Path("digits.env")


class Server(uvicorn.Server):
    """A server that stops being ready the moment it is told to end, and knows whether loading failed."""

    def __init__(self, settings: Settings) -> None:
        self.readiness = Readiness()
        self.load_failed = False
        app = create_app(settings, readiness=self.readiness, on_load_failure=self._end)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=within(Limits(settings.receive_timeout_s, settings.max_connections)),
                # Measured: uvloop, which uvicorn prefers where it is installed, is no faster here.
                loop="asyncio",
                # Nothing here asks who the caller is, or whether a proxy spoke TLS.
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.shutdown_grace_s,
                access_log=False,
                log_config=None,
                server_header=False,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGINT: not ready from here on; a second one ends at once."""
        self.readiness.drain()
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serve until told to end, or not at all where loading failed before the server listened."""
        self.should_exit = self.should_exit or self.load_failed
        await super().main_loop()

    def _end(self) -> None:
        self.load_failed = True
        # Told to end before it has started, uvicorn leaves without ending the lifespan.
        self.should_exit = self.started


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
    # uvicorn raises the signal that ended it once more, under the handler it found. Ending when told is no error.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        provide(settings.max_connections)
    except TooFewDescriptors as error:
        log.error("cannot start: %s", error)
        return 1
    server = Server(settings)
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
    return 0 if server.started and not server.load_failed else 1


if __name__ == "__main__":
    sys.exit(main())

"""One process per core, forked by gunicorn after the imports so that they share memory.

gunicorn replaces a process that has ended or whose event loop hangs, and forwards signals to the processes, each of
which drains by itself (`app.server.process`). The processes share a listening socket, so that connections in its queue
survive the end of any of them.
"""

import faulthandler
import logging
import os
import shutil
import signal
import socket
import time
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker
from prometheus_client.multiprocess import mark_process_dead

from app.scoreboard import Scoreboard
from app.server.environment import exit_process
from app.server.process import Server, freeze
from app.server.protocol import UnsupportedUvicorn
from app.settings import Settings

log = logging.getLogger(__name__)

# The exit status of a process whose failure ends the service.
CANNOT_START = Arbiter.WORKER_BOOT_ERROR
# Seconds before a process that failed while others serve is replaced.
RETRY_S = 1


class Process(Worker):
    """A process of the service."""

    settings: Settings
    scoreboard: Scoreboard
    column: int

    def init_signals(self) -> None:
        """Until the server handles signals: SIGTERM and SIGQUIT end the process, others are ignored."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGQUIT, lambda *_: exit_process(0))
        faulthandler.enable()  # prints where the process hangs when the supervisor ends it with SIGABRT

    def load_wsgi(self) -> None:
        """Nothing: the server makes the app."""

    def run(self) -> None:
        """Serve until a signal ends the process."""
        self.scoreboard.join(self.column)
        (listener,) = self.sockets
        try:
            server = Server(self.settings, socket.socket(fileno=listener.fileno()), self.scoreboard, self.notify)
        except UnsupportedUvicorn as error:
            log.error("cannot start: %s", error)
            exit_process(CANNOT_START)
        freeze()
        server.run(sockets=[])  # it accepts by itself
        if os.getppid() != self.ppid:  # the supervisor has ended without its own cleanup
            shutil.rmtree(self.cfg.worker_tmp_dir, ignore_errors=True)
        if self.scoreboard.was_ready and server.failed:
            time.sleep(RETRY_S)
            exit_process(1)
        failed = server.failed or not server.started
        exit_process((CANNOT_START if self.scoreboard.is_first else 1) if failed else 0)


class Log(Logger):
    """gunicorn's log, written by the handlers of the service."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002
        """Pass records on, except those about each worker and each signal."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)


class Supervisor(BaseApplication):
    """gunicorn with this configuration."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._configuration = configuration
        super().__init__()

    def load_config(self) -> None:
        """Set the configuration."""
        for name, value in self._configuration.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Nothing: this module has imported what the processes share."""


def configuration(settings: Settings, processes: int, listener: socket.socket) -> dict[str, Any]:
    """The settings of gunicorn after `environment.prepare_service`; it takes over the listener."""
    scoreboard = Scoreboard(processes)
    scoreboard.clear(0)  # with one process, the supervisor would be that process
    shared = os.environ["PROMETHEUS_MULTIPROC_DIR"]

    def on_starting(arbiter: Arbiter) -> None:
        def reload() -> None:
            scoreboard.begin_reload()
            arbiter.kill_workers(signal.SIGHUP)

        def ignore() -> None:
            """The number of processes is fixed, and a new version is a new service."""

        # gunicorn would replace all processes at SIGHUP, and would not let them finish at Ctrl-C.
        vars(arbiter).update(handle_hup=reload, handle_int=arbiter.handle_term)
        vars(arbiter).update(handle_ttin=ignore, handle_ttou=ignore, handle_usr2=ignore)

    def pre_fork(_: Arbiter, process: Process) -> None:
        process.settings, process.scoreboard = settings, scoreboard
        process.column = scoreboard.take_column()

    def child_exit(_: Arbiter, process: Process) -> None:
        scoreboard.clear(process.column)
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]

    return {
        "bind": f"fd://{listener.detach()}",
        "workers": processes,
        "worker_class": Process,
        "worker_tmp_dir": shared,
        "timeout": settings.worker_checks,
        "graceful_timeout": settings.shutdown_grace_s + 1,
        "preload_app": True,
        "logger_class": Log,
        "control_socket_disable": True,
        "proc_name": "digits",
        "on_starting": on_starting,
        "when_ready": lambda _: freeze(),
        "pre_fork": pre_fork,
        "child_exit": child_exit,
        "on_exit": lambda _: shutil.rmtree(shared, ignore_errors=True),
    }


def serve(settings: Settings, processes: int, listener: socket.socket) -> int:
    """Serve with this number of processes until a signal ends the supervisor. Returns the exit status."""
    values = configuration(settings, processes, listener)
    try:
        Supervisor(values).run()
    except HaltServer:  # a second process could not start
        return 1
    except SystemExit as end:
        return 1 if end.code else 0
    finally:
        shutil.rmtree(values["worker_tmp_dir"], ignore_errors=True)
    return 0

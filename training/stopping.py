"""Signals that stop a run after its current step."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was stopped by a signal, and saved its state."""

    def __init__(self, message: str, signal_number: int | None) -> None:
        """`signal_number` is None if another process received the signal."""
        super().__init__(message)
        self.signal_number = signal_number or signal.SIGTERM


class StopRequest:
    """A context in which the first SIGINT or SIGTERM only sets `signal_number`; the next one has its usual effect.

    Ignored signals stay ignored, such as SIGINT in a shell's background job. Outside the main thread, where Python
    cannot handle signals, `signal_number` stays None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self.signal_number = number
        self._restore()
        log.info("stopping after this step; a second signal stops at once, without saving")

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]

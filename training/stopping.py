"""Signals that ask a run to stop: noted, not obeyed at once. Knows no run."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run ended early as it was asked to; its state is kept."""

    def __init__(self, message: str, number: int | None) -> None:
        super().__init__(message)
        self.number = number or signal.SIGTERM  # of another process


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `number`; the next one does what it always did.

    What the process ignores, as a shell's background job does SIGINT, stays ignored. Outside the main thread, where
    Python has no signals, it stays unset.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        self.number = number
        self._restore()
        log.info("stopping after this step; once more, and nothing is kept of what followed the last saved state")

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]

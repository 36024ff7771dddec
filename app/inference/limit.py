"""A bound on what is in flight in all processes: rows, uploaded files or streams."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded
from app.scoreboard import Counter


class Limit:
    """Admits requests immediately or not at all.

    Requests for more than `small` may fill only three quarters of the bound, so that a few of them cannot keep small
    ones out, or all of it if nothing else is in flight.
    """

    def __init__(self, most: int, in_flight: Counter, *, small: int, what: str) -> None:
        """most: the bound. what: the name of the counted things, for errors."""
        self._most = most
        self._in_flight = in_flight
        self._small = small
        self._what = what

    @contextmanager
    def admit(self, number: int) -> Iterator[None]:
        """Count `number` as in flight. Raises Overloaded if there are too many."""
        in_flight = self._in_flight.total
        most = self._most if number <= self._small or not in_flight else self._most * 3 // 4
        if number and in_flight + number > most:
            raise Overloaded(f"too many {self._what} are in flight; retry later")
        self.count(number)
        try:
            yield
        finally:
            self.count(-number)

    def count(self, number: int) -> None:
        """Count `number` more, or fewer, as in flight, whatever the bound is."""
        self._in_flight.add(number)

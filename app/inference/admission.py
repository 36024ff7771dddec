"""Who may have rows in the service: a count and its bound. Knows neither queues nor HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class RowAdmission:
    """Rows that were accepted and whose results are not there yet, over all networks.

    A request is admitted once, before anything of it is decoded or drawn, with as many rows as it has at one time:
    whoever passed here is not refused between two networks.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.rows = 0

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Hold a place for `rows`. Raises Overloaded at once where there is none."""
        if self.rows + rows > self._max_rows:
            raise Overloaded("too many rows are waiting; try again later")
        self.rows += rows
        try:
            yield
        finally:
            self.rows -= rows

"""What the processes of a service share: the counters behind its bounds, and which models each of them serves.

A table in memory that is mapped before the fork, with a column for each process. A process writes only its own column,
and a total is the sum of a row. Processes that check a bound at the same moment may all pass, so that a bound can be
exceeded by one request a process.
"""

import asyncio
import mmap
import os
import signal

FIELDS = (
    "pid",
    "connections",
    "requests",
    "bytes",
    "rows",
    "sequential_rows",
    "files",
    "streams",
    "scrapes",
    "busy",
    "busy_sequential",
    "reload",
    "loaded",
    "serving",
)
# Cells of the whole service: whether it was ever ready, the number of the last reload, the number of columns taken, and
# whether the last reload was refused.
WAS_READY, RELOAD, COLUMNS_TAKEN, RELOAD_REFUSED = SERVICE_CELLS = range(4)
# Seconds between polls of the columns of other processes, which cannot set an event in this one.
POLL_S = 0.02


class Counter:
    """A number of this process, and the total of all processes."""

    def __init__(self, cells: memoryview, column: int) -> None:
        self._cells = cells
        self._column = column

    def add(self, number: int) -> None:
        """Add to the number of this process."""
        self._cells[self._column] += number

    @property
    def own(self) -> int:
        """The number of this process."""
        return int(self._cells[self._column])

    @property
    def total(self) -> int:
        """The sum over all processes."""
        return sum(self._cells)


class Scoreboard:
    """The shared table. The supervisor creates it, and each process gets a column with `join`.

    A set of loaded models is identified by a number other than 0 that is equal in all processes.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        memory = memoryview(mmap.mmap(-1, 8 * (processes * len(FIELDS) + len(SERVICE_CELLS)))).cast("q")
        self._rows = {name: memory[i * processes : (i + 1) * processes] for i, name in enumerate(FIELDS)}
        self._service = memory[processes * len(FIELDS) :]
        self._column = 0
        if processes == 1:
            self.join(0)

    def take_column(self) -> int:
        """Reserve a column for a process that is about to be forked. Raises ValueError if all are taken."""
        column = self._rows["pid"].tolist().index(0)
        self._rows["pid"][column] = -1
        self._service[COLUMNS_TAKEN] += 1
        return column

    def join(self, column: int) -> None:
        """Make this column that of the calling process."""
        self._column = column
        self._rows["pid"][column] = os.getpid()

    def clear(self, column: int) -> None:
        """Free the column of a process that has ended."""
        for cells in self._rows.values():
            cells[column] = 0

    def counter(self, name: str) -> Counter:
        """The counter `name`, one of `FIELDS`, of this process."""
        return Counter(self._rows[name], self._column)

    def by_column(self, name: str) -> dict[int, int]:
        """The cell of each process in the row `name`, by column."""
        return {column: self._rows[name][column] for column, pid in enumerate(self._rows["pid"]) if pid > 0}

    @property
    def replacements(self) -> int:
        """The number of processes that replaced another one."""
        return max(0, self._service[COLUMNS_TAKEN] - self.processes)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [*self.by_column("pid").values()]

    @property
    def is_first(self) -> bool:
        """Whether this process records events of the whole service."""
        return self.pids[:1] == [os.getpid()]

    @property
    def was_ready(self) -> bool:
        """Whether all processes have served at the same time. A process that is replaced later does not count."""
        if not self._service[WAS_READY] and all(self._rows["serving"]):
            self._service[WAS_READY] = 1
        return bool(self._service[WAS_READY])

    @property
    def served_by_others(self) -> set[int]:
        """The sets of models that other processes serve."""
        return {models for i, models in enumerate(self._rows["serving"]) if models and i != self._column}

    @property
    def serving(self) -> int:
        """The number of processes that serve."""
        return sum(map(bool, self._rows["serving"]))

    def serve(self, models: int) -> None:
        """Report that this process serves these models."""
        self._rows["serving"][self._column] = models

    @property
    def reload(self) -> int:
        """The number of the reload that was requested last."""
        return int(self._service[RELOAD])

    def begin_reload(self) -> None:
        """Record that a reload was requested. Only the supervisor may call this."""
        self._service[RELOAD] += 1

    @property
    def reload_refused(self) -> bool:
        """Whether the last reload was refused."""
        return bool(self._service[RELOAD_REFUSED])

    @reload_refused.setter
    def reload_refused(self, refused: bool) -> None:
        self._service[RELOAD_REFUSED] = refused

    async def agree(self, reload: int, models: int) -> bool:
        """Whether this process may serve `models`, which it has loaded for a reload. models: 0 if loading failed.

        Waits until every process has loaded models for this or a later reload; all must have loaded the same ones. A
        process that starts alone may serve what the others serve.
        """
        row, mine = self._rows, self._column
        row["loaded"][mine], row["reload"][mine] = models, reload + 1
        if not row["serving"][mine] and self.served_by_others == {models}:
            return True
        while any(done <= reload for pid, done in zip(row["pid"], row["reload"], strict=True) if pid):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return models != 0 and {each for pid, each in zip(row["pid"], row["loaded"], strict=True) if pid} == {models}

    async def request_reload(self) -> None:
        """Make all processes reload, as the files have changed since the others loaded them. Waits until it begins."""
        before = self.reload
        os.kill(os.getppid(), signal.SIGHUP)
        while self.reload == before:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

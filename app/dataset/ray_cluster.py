"""Make shards on a Ray cluster. Every node needs this package and the checkpoints under the same path."""

import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from app.dataset.plan import RESUME_HINT, DatasetError, Plan, Request
from app.dataset.shards import Setup, Shard, make_plan, make_shard

CONNECT_TIMEOUT_S = 5


class RayCluster:
    """A connection to a cluster."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    @classmethod
    @contextmanager
    def connected(cls, setup: Setup, address: str) -> Iterator["RayCluster"]:
        """Connect to the cluster at this address, and disconnect at the end. Raises DatasetError."""
        _check_answers(address)
        try:
            import ray  # noqa: PLC0415 -- of an extra
            import ray.data  # noqa: PLC0415
        except ImportError:
            raise DatasetError("--ray needs the extra `ray`: pip install '.[dataset,ray]'") from None
        try:
            ray.init(address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise DatasetError(f"no Ray cluster at {address}: {_line(error)}") from error
        try:
            yield cls(setup)
        except ray.exceptions.RayError as error:
            raise DatasetError(f"the Ray cluster failed: {_line(error)}; {RESUME_HINT}") from error
        finally:
            ray.shutdown()

    def plan(self, request: Request) -> Plan:
        """As `make_plan`, on any node."""
        import ray  # noqa: PLC0415

        plan: Plan = _result(ray.get(ray.remote(_pickled).remote(make_plan, self._setup, request)))
        return plan

    def shards(self, plan: Plan, numbers: Sequence[int]) -> Iterator[Shard]:
        """The shards of these numbers, in any order. Ray recomputes those of a lost node on another one."""
        import ray.data  # noqa: PLC0415

        # The command has its own progress bar and messages.
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if not numbers:
            return
        setup = self._setup

        def make(row: dict[str, Any]) -> dict[str, bytes]:
            return {"shard": _pickled(make_shard, setup, plan, numbers[row["id"]])}

        # One block per shard, so that a shard is returned as soon as it is made.
        rows = ray.data.range(len(numbers), override_num_blocks=len(numbers)).map(make)
        for row in rows.iter_rows():
            yield _result(row["shard"])


def _pickled(function: Callable[..., object], *arguments: object) -> bytes:
    """The pickled result of a function, or its DatasetError, for `_result`."""
    try:
        return pickle.dumps(function(*arguments))
    except DatasetError as error:
        return pickle.dumps(error)


def _result(pickled: bytes) -> Any:
    """The result in the output of `_pickled`. Raises DatasetError if it is one."""
    result = pickle.loads(pickled)  # noqa: S301 -- from a node of the cluster, which runs this code
    if isinstance(result, DatasetError):
        raise result
    return result


def _check_answers(address: str) -> None:
    """Raises DatasetError if nothing listens at an address [ray://]HOST:PORT. Ray would try for minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise DatasetError(f"{address!r} is not an address of Ray: {error}") from error
    if host is None or port is None:  # as in `auto`
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise DatasetError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def _line(error: Exception) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

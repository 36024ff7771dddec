"""What routes are given, typed. The lifespan puts it into the request state; nothing is global."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Annotated, Any, TypedDict, TypeVar, cast

from fastapi import Depends
from starlette.requests import Request

from app.api.admission import Refuse
from app.api.deadlines import deadline_of
from app.api.negotiation import favourite
from app.errors import CallerGone, Overloaded
from app.inference.engine import Engine
from app.metrics import Metrics
from app.metrics_page import MetricsPage
from app.readiness import Readiness
from app.settings import Settings

T = TypeVar("T")


class ImageWorkers:
    """A few threads that encode images, and a few that decode uploads, so that the event loop does not.

    Uploads that wait for a decoder hold their bytes: `waiting` of them may, the next ones are refused.
    """

    def __init__(self, encoders: int, decoders: int, waiting: int) -> None:
        self._encoders = ThreadPoolExecutor(encoders, thread_name_prefix="encode")
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._places = decoders + waiting
        # Every thread now: when memory is short later, none could be started.
        for threads, size in ((self._encoders, encoders), (self._decoders, decoders)):
            together = Barrier(size + 1)
            for _ in range(size):
                threads.submit(together.wait)
            together.wait()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` on a thread that encodes. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, function, *arguments)

    async def decode(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` on a thread that decodes. Raises what it raises, and Overloaded."""
        if self._places == 0:
            raise Overloaded("as many uploads wait to be read as may")
        self._places -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)
        finally:
            self._places += 1

    def close(self) -> None:
        """Let the threads end once they have nothing left to do."""
        for threads in (self._encoders, self._decoders):
            threads.shutdown(wait=False, cancel_futures=True)


class State(TypedDict):
    """What the lifespan owns and every request can reach."""

    settings: Settings
    metrics: Metrics
    metrics_page: MetricsPage
    readiness: Readiness
    image_workers: ImageWorkers
    refuse: Refuse | None  # what a server may ask before it makes a task for a request


def state_of(request: Request) -> State:
    """The lifespan's state of this app."""
    return cast(State, request.scope["state"])


# Coroutines, though they wait for nothing: FastAPI calls a plain function on a thread of its pool, and two
# changes of thread a request and dependency cost more than everything else that the event loop does for it.
async def get_state(request: Request) -> State:
    """A dependency that gives the lifespan's state."""
    return state_of(request)


async def get_engine(request: Request) -> Engine:
    """A dependency that gives the engine. Raises NotReady while it is loading, Draining at the end."""
    return state_of(request)["readiness"].engine()


StateDep = Annotated[State, Depends(get_state)]
EngineDep = Annotated[Engine, Depends(get_engine)]


@dataclass(slots=True)
class Call:
    """A request that there is an engine for, and the form the caller wants the answer in."""

    request: Request
    engine: Engine
    form: str
    deadline: float  # of the monotonic clock
    settings: Settings
    metrics: Metrics
    workers: ImageWorkers


def call_for(*forms: str) -> Callable[[Request], Coroutine[Any, Any, Call]]:
    """A dependency that gives all a route needs at once: each one that FastAPI resolves costs some 15 us.

    Raises NotReady, Draining and WorkerLost; NotAcceptable where the caller takes none of `forms`; InvalidRequest for
    a timeout that is none.
    """

    async def call(request: Request) -> Call:
        state = state_of(request)
        engine = state["readiness"].engine()
        form = favourite(request, forms)
        deadline = deadline_of(request.scope, state["settings"].request_timeout_s)
        return Call(request, engine, form, deadline, state["settings"], state["metrics"], state["image_workers"])

    return call


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up. Raises CallerGone then.

    To be called once the body was read: until then the caller's messages are the body's.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        # Ours, unless this task was cancelled from outside, too: that one goes on.
        if gone and task.uncancel() <= cancelled_before:
            raise CallerGone("the connection was closed before the answer") from None
        raise
    finally:
        watcher.cancel()

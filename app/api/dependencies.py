"""What routes are given, typed. The lifespan puts it into the request state; nothing is global."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict, TypeVar, cast

from fastapi import Depends
from starlette.requests import Request

from app.errors import CallerGone
from app.inference.engine import Engine
from app.metrics import Metrics
from app.readiness import Readiness
from app.settings import Settings

T = TypeVar("T")


class ImageWorkers:
    """A few threads that decode and encode images, so that the event loop does not."""

    def __init__(self, size: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="images")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` on one of the threads. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """Let the threads end once they have nothing left to do."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class State(TypedDict):
    """What the lifespan owns and every request can reach."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    image_workers: ImageWorkers


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


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up. Raises CallerGone then.

    To be called once the body was read: until then the caller's messages are the body's.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise CallerGone("the connection was closed before the answer")
    finally:
        # Also when this coroutine itself is cancelled: nobody waits for the rows any more.
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

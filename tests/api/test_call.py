"""Work for a caller ends when the caller disconnects."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import pytest

from app.api.call import Call
from app.errors import CallerGone
from app.settings import Settings

pytestmark = pytest.mark.anyio


class Caller:
    """The other end of a connection."""

    def __init__(self) -> None:
        self.disconnected = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    @property
    def call(self) -> Call:
        readiness = SimpleNamespace(engine=lambda: None)
        state = {"settings": Settings(), "metrics": None, "decoders": None, "streams": None, "readiness": readiness}
        return Call({"type": "http", "headers": [], "state": state}, self.receive)


class Work:
    """A computation that waits for an event."""

    def __init__(self) -> None:
        self.started, self.finish = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    def run(self) -> "asyncio.Task[str]":
        return asyncio.ensure_future(self._run())

    async def _run(self) -> str:
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "result"


async def test_the_result_is_returned_and_no_task_is_left():
    before, work = asyncio.all_tasks(), Work()
    waiting = asyncio.create_task(Caller().call.while_connected(work.run()))
    await work.started.wait()
    work.finish.set()
    assert await waiting == "result"
    async with asyncio.timeout(60):
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)


async def test_work_is_cancelled_when_the_caller_disconnects_and_the_task_can_go_on():
    caller, work = Caller(), Work()

    async def operation() -> int:
        with pytest.raises(CallerGone):
            await caller.call.while_connected(work.run())
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    waiting = asyncio.create_task(operation())
    await work.started.wait()
    caller.disconnected.set()
    assert await waiting == 0
    assert work.cancelled


@pytest.mark.parametrize("last", ["disconnected", "finish"])
async def test_a_result_in_the_turn_of_the_disconnect_leaves_no_cancellation_behind(last):
    caller, work = Caller(), Work()

    async def operation() -> int:
        with suppress(CallerGone):
            assert await caller.call.while_connected(work.run()) == "result"
        for _ in range(5):
            await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    waiting = asyncio.create_task(operation())
    await work.started.wait()
    events = {"disconnected": caller.disconnected, "finish": work.finish}
    for event in (*(events.keys() - {last}), last):
        events[event].set()
    assert await waiting == 0


async def test_work_is_cancelled_when_the_connection_fails():
    work = Work()

    async def receive() -> dict[str, str]:
        await work.started.wait()
        raise ConnectionResetError

    call = Call(Caller().call.scope, receive)
    with pytest.raises(ConnectionResetError):
        await call.while_connected(work.run())
    await asyncio.sleep(0)
    assert work.cancelled


@pytest.mark.parametrize("disconnected", [False, True])
async def test_a_cancellation_from_outside_reaches_the_work_and_is_raised(disconnected):
    caller, work = Caller(), Work()
    waiting = asyncio.create_task(caller.call.while_connected(work.run()))
    await work.started.wait()
    if disconnected:
        caller.disconnected.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled

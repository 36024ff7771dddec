"""Work for a caller ends with the caller, and with whoever waits for it."""

import asyncio

import pytest
from starlette.requests import Request

from app.api.dependencies import while_connected
from app.errors import CallerGone


class Caller:
    """The other side of a request: hangs up when told to."""

    def __init__(self) -> None:
        self.hung_up = asyncio.Event()
        self.watched = 0

    async def receive(self) -> dict[str, str]:
        self.watched += 1
        try:
            await self.hung_up.wait()
        finally:
            self.watched -= 1
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)


class Work:
    """Something that begins, waits to be let through, and knows how it ended."""

    def __init__(self) -> None:
        self.begun, self.let_through = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def run(self) -> str:
        self.begun.set()
        try:
            await self.let_through.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


def test_the_result_is_given_and_nobody_watches_any_more():
    async def scenario() -> None:
        caller, work = Caller(), Work()
        waiting = asyncio.create_task(while_connected(caller.request, work.run()))
        await work.begun.wait()
        work.let_through.set()
        assert await waiting == "done"
        await asyncio.sleep(0)
        assert caller.watched == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_work_for_a_caller_that_hangs_up_is_cancelled():
    async def scenario() -> None:
        caller, work = Caller(), Work()

        async def route() -> int:
            with pytest.raises(CallerGone):
                await while_connected(caller.request, work.run())
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        waiting = asyncio.create_task(route())
        await work.begun.wait()
        caller.hung_up.set()
        assert await waiting == 0  # the task may go on: it is not being cancelled
        assert work.cancelled

    asyncio.run(scenario())


def test_a_fault_of_the_work_is_raised_as_it_is():
    async def broken() -> None:
        raise RuntimeError("broken")

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            await while_connected(Caller().request, broken())

    asyncio.run(scenario())


@pytest.mark.parametrize("hung_up_too", [False, True])
def test_a_cancellation_from_outside_goes_on_and_reaches_the_work(hung_up_too):
    async def scenario() -> None:
        caller, work = Caller(), Work()
        waiting = asyncio.create_task(while_connected(caller.request, work.run()))
        await work.begun.wait()
        if hung_up_too:
            caller.hung_up.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert work.cancelled

    asyncio.run(scenario())


def test_a_deadline_within_the_work_stays_a_deadline():
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await while_connected(Caller().request, late())

    asyncio.run(scenario())

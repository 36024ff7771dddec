"""An open loop sends when it is time, counts from then, and tells every end of a request apart."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.openloop import Load, post
from benchmarks.processes import free_ports

ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n%b\r\n{}"
REQUEST = post("/generate", b"{}")
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


async def served(
    answer: Answering, ask: Callable[[Load], Awaitable[None]], wait_s: float = 10, max_connections: int = 100
) -> Load:
    """Some load on a server that calls `answer` for each request with its number."""
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while await reader.readexactly(len(REQUEST)):
                number += 1
                await answer(reader, writer, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        load = Load(server.sockets[0].getsockname()[1], lambda _: REQUEST, max_connections=max_connections)
        await ask(load)
        await load.finish(wait_s)
    return load


def test_every_request_has_one_answer_and_a_latency_from_when_it_was_due():
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(ANSWER % (503 if number % 4 == 0 else 200, b""))

    async def scenario() -> None:
        load = await served(answer, lambda load: load.at_rate(200, 0.1))
        assert load.record.counts() == {"200": 15, "503": 5}
        assert load.record.surplus == 0
        due = list(load.record.due)
        assert sorted(due) == due
        assert abs((due[-1] - due[0]) - 19 / 200) < 1e-6  # the schedule, not the clock
        assert all(ms >= 0 for ms in load.record.latencies_ms())

    asyncio.run(scenario())


def test_ends_without_an_answer_are_told_apart():
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            writer.close()
        elif number == 2:
            writer.write((ANSWER % (200, b""))[:10])
            writer.close()
        elif number == 3:
            writer.write(ANSWER % (200, b"Connection: close\r\n") + b"surplus")
            writer.close()

    async def scenario() -> None:
        load = await served(answer, lambda load: load.at_rate(100, 0.04), wait_s=0.5)
        assert load.record.counts() == {"unanswered": 1, "cut": 1, "lost": 1, "200": 1}
        assert load.record.surplus == len(b"surplus")

    asyncio.run(scenario())


def test_requests_beyond_the_connections_there_may_be_are_told_and_do_not_wait():
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(3600)

    async def scenario() -> None:
        load = await served(answer, lambda load: load.at_rate(100, 0.1), wait_s=0.1, max_connections=3)
        assert load.record.counts() == {"unanswered": 3, "unsent": 7}

    asyncio.run(scenario())


def test_nobody_who_listens_is_unreachable():
    async def scenario() -> None:
        load = Load(free_ports(1)[0], lambda _: REQUEST)
        await load.at_rate(100, 0.03)
        await load.finish()
        assert load.record.counts() == {"unreachable": 3}

    asyncio.run(scenario())


def test_callers_of_a_closed_loop_ask_again_once_they_are_answered():
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(ANSWER % (200, b""))

    async def scenario() -> None:
        load = await served(answer, lambda load: load.by_callers(3, 0.2))
        assert len(load.record.latencies_ms()) > 3

    asyncio.run(scenario())

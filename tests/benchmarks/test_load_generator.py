"""The load generator sends on schedule, counts latency from then, and tells all results of a request apart."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.load_generator import Load, post
from benchmarks.processes import free_ports

ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n%b\r\n{}"
REQUEST = post("/generate", b"{}")
Answering = Callable[[asyncio.StreamWriter, int], None]


async def served(
    answer: Answering, loop: Callable[[Load], Awaitable[None]], wait_s: float = 10, max_connections: int = 100
) -> Load:
    """The load on a server that calls `answer` for each request with its number."""
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while await reader.readexactly(len(REQUEST)):
                number += 1
                answer(writer, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        load = Load(server.sockets[0].getsockname()[1], lambda _: REQUEST, max_connections)
        await loop(load)
        await load.finish(wait_s)
    return load


def test_requests_are_due_at_even_intervals_and_end_with_the_status_of_their_answer():
    def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(ANSWER % (503 if number % 4 == 0 else 200, b""))

    load = asyncio.run(served(answer, lambda load: load.at_rate(200, 0.1)))
    assert load.record.counts() == {"200": 15, "503": 5}
    assert load.record.surplus_bytes == 0
    due = sorted(sample.due for sample in load.record.samples)
    assert abs((due[-1] - due[0]) - 19 / 200) < 1e-6  # the schedule, not the clock
    assert min(load.record.latencies_ms()) >= 0


def test_results_without_a_complete_answer_are_told_apart():
    def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            writer.close()
        elif number == 2:
            writer.write((ANSWER % (200, b""))[:10])
            writer.close()
        elif number == 3:
            writer.write(ANSWER % (200, b"Connection: close\r\n") + b"surplus")
            writer.close()

    load = asyncio.run(served(answer, lambda load: load.at_rate(100, 0.04), wait_s=0.5))
    assert load.record.counts() == {"unanswered": 1, "cut": 1, "lost": 1, "200": 1}
    assert load.record.surplus_bytes == len(b"surplus")


def test_requests_beyond_the_limit_of_connections_are_unsent():
    load = asyncio.run(served(lambda *_: None, lambda load: load.at_rate(100, 0.1), 0.1, max_connections=3))
    assert load.record.counts() == {"unanswered": 3, "unsent": 7}


def test_a_port_without_a_server_is_unreachable():
    async def scenario() -> Load:
        load = Load(free_ports(1)[0], lambda _: REQUEST)
        await load.at_rate(100, 0.03)
        await load.finish()
        return load

    assert asyncio.run(scenario()).record.counts() == {"unreachable": 3}


def test_callers_of_a_closed_loop_send_again_when_they_are_answered():
    load = asyncio.run(
        served(lambda writer, _: writer.write(ANSWER % (200, b"")), lambda load: load.by_callers(3, 0.2))
    )
    assert load.record.counts()["200"] > 3

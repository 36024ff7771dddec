"""Requests start in order, a bounded number in each turn of the event loop."""

import asyncio
from functools import partial

import pytest

from app.server.turns import MAX_STARTS_PER_TURN, Turns

pytestmark = pytest.mark.anyio


async def test_few_requests_start_at_once_and_many_in_order_over_several_turns():
    turns = Turns()
    started: list[int] = []
    for number in range(3 * MAX_STARTS_PER_TURN):
        turns.start(partial(started.append, number))
    counts = [len(started)]
    while len(started) <= 3 * MAX_STARTS_PER_TURN:
        await asyncio.sleep(0)
        turns.start(partial(started.append, 3 * MAX_STARTS_PER_TURN + len(counts)))
        counts.append(len(started))
    assert counts[:3] == [MAX_STARTS_PER_TURN, 2 * MAX_STARTS_PER_TURN, 3 * MAX_STARTS_PER_TURN]
    assert started == sorted(started)


async def test_after_a_turn_without_requests_the_next_ones_start_at_once():
    turns = Turns()
    started: list[None] = []
    for _ in range(3):
        for _ in range(MAX_STARTS_PER_TURN):
            turns.start(partial(started.append, None))
        for _ in range(3):
            await asyncio.sleep(0)
    assert len(started) == 3 * MAX_STARTS_PER_TURN

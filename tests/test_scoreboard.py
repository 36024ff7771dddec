"""What the processes of a service share; here both processes are objects with the same memory."""

import asyncio
import copy

import pytest

from app.scoreboard import Scoreboard

OLD, NEW = 7, 8


@pytest.fixture
def pair() -> tuple[Scoreboard, Scoreboard]:
    first = Scoreboard(2)
    second = copy.copy(first)
    for board in (first, second):
        board.join(first.take_column())
    return first, second


def test_a_counter_has_a_part_for_each_process_and_a_total(pair):
    first, second = (board.counter("rows") for board in pair)
    first.add(3)
    second.add(4)
    first.add(-1)
    assert (first.own, second.own, first.total, second.total) == (2, 4, 6, 6)


def test_a_process_that_ended_leaves_its_column_and_its_counts(pair):
    first, second = pair
    second.counter("rows").add(5)
    first.clear(1)
    assert first.counter("rows").total == 0
    assert len(first.pids) == 1
    assert first.take_column() == 1
    with pytest.raises(ValueError, match="not in list"):
        first.take_column()


def test_processes_that_replace_others_are_counted(pair):
    first, second = pair
    assert first.replacements == 0
    for column in (0, 1, 1):
        first.clear(column)
        second.join(first.take_column())
        assert second.by_column("pid").keys() == {0, 1}
    assert second.replacements == 3


def test_the_service_was_ready_once_all_processes_have_served_at_the_same_time(pair):
    first, second = pair
    first.serve(OLD)
    assert not first.was_ready
    second.serve(OLD)
    assert second.was_ready
    first.clear(1)
    assert first.was_ready


@pytest.mark.parametrize(("others", "agreed"), [(NEW, True), (OLD, False), (0, False)])
@pytest.mark.anyio
async def test_models_are_served_if_all_processes_have_loaded_the_same(pair, others, agreed):
    first, second = pair
    for board in pair:
        board.serve(OLD)
    first.begin_reload()
    waiting = asyncio.create_task(first.agree(1, NEW))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await second.agree(1, others) is (agreed and others == NEW)
    assert await waiting is agreed


@pytest.mark.anyio
async def test_a_process_that_loaded_nothing_does_not_serve_even_if_all_loaded_nothing(pair):
    assert await asyncio.gather(*(board.agree(0, 0) for board in pair)) == [False, False]


@pytest.mark.anyio
async def test_a_process_that_is_replaced_serves_what_the_others_serve(pair):
    first, second = pair
    first.serve(OLD)
    assert await second.agree(0, OLD)
    assert second.served_by_others == {OLD}

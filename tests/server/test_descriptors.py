"""A process gets the open files that its connections need, or says that it cannot."""

import resource

import pytest

from app.descriptors import RESERVE, TooFewDescriptors, provide


@pytest.fixture
def limits(monkeypatch):
    """The limits of a process that is not this one: what the system would say, and what it was told."""
    told = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))

    def set_to(soft, hard):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        return told

    return set_to


def test_a_low_limit_is_raised_to_what_is_needed(limits):
    told = limits(256, 4096)
    provide(1000)
    assert told == [(1000 + RESERVE, 4096)]


def test_a_limit_that_is_high_enough_is_left(limits):
    told = limits(1000 + RESERVE, 10_000)
    provide(1000)
    assert told == []


def test_a_limit_that_cannot_be_raised_is_told_with_both_numbers(limits):
    limits(256, 512)
    with pytest.raises(TooFewDescriptors, match=r"DIGITS_MAX_CONNECTIONS=1000 takes \d+ open files.* 512"):
        provide(1000)

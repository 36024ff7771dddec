"""A process may open the files that its connections need, or does not start."""

import resource

import pytest

from app.server.descriptors import RESERVE, TooFewDescriptors, raise_limit


@pytest.mark.parametrize(("soft", "hard", "told"), [(256, 4096, [(1000 + RESERVE, 4096)]), (10_000, 10_000, [])])
def test_a_limit_that_is_too_low_is_raised(monkeypatch, soft, hard, told):
    calls = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: calls.append(limits))
    raise_limit(1000)
    assert calls == told


def test_a_limit_that_cannot_be_raised_is_named():
    with pytest.raises(TooFewDescriptors, match=r"DIGITS_MAX_CONNECTIONS=\d+ takes \d+ open files"):
        raise_limit(2**62)

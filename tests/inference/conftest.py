"""Workers that end with their test."""

from collections.abc import Callable, Iterator

import pytest

from app.inference.workers import Workers


@pytest.fixture
def pool() -> Iterator[Callable[..., Workers]]:
    """Makes workers, and closes them at the end."""
    made: list[Workers] = []

    def make(size: int, initialize: Callable[[], object] = lambda: None) -> Workers:
        made.append(Workers(size, initialize))
        return made[-1]

    yield make
    for workers in made:
        workers.close()
